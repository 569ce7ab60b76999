_base_ = './pyramid_r18_1xb8-400i_shapes-160x160.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=[16, 32, 64, 128],
        in_index=(0, 1, 2, 3),
        input_transform='resize_concat',
        channels=64,
        kernel_size=1,
        num_convs=1,
        concat_input=False,
        num_classes=5,
        norm_cfg=dict(type='BN'),
    ),
)
