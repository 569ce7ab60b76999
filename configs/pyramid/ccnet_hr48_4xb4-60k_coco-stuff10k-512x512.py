_base_ = './_base_/hr48_4xb4-60k_coco-stuff10k-512x512.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='CCHead',
        in_channels=[48, 96, 192, 384],
        in_index=(0, 1, 2, 3),
        input_transform='resize_concat',
        channels=512,
        recurrence=2,
        sampler=dict(type='OHEMPixelSampler', thresh=0.9, min_kept=32768),  # mmseg counts an image's: HRNet-OCR keeps 131072 of 4 images
        num_classes=171,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    )
)
