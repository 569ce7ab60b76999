_base_ = './_base_/hr48_4xb4-60k_coco-stuff10k-512x512.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='PyramidRepresentationHead',
        in_channels=[48, 96, 192, 384],
        in_index=(0, 1, 2, 3),
        input_transform='resize_concat',
        channels=512,
        num_classes=171,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    )
)
