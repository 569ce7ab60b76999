_base_ = ['mmseg::_base_/default_runtime.py', './_base_/shapes_seg.py', './_base_/schedule_400i_seg.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, size=(160, 160), seg_pad_val=255
    ),
    # the first convolution's stride and the four poolings are replaced
    backbone=dict(type='Repooled', backbone='UNet', pool=dict(type='PolynomialPool2d'), base_channels=16, strides=(2, 1, 1, 1, 1)),
    decode_head=dict(
        type='FCNHead',
        in_channels=16,
        in_index=4,
        channels=16,
        num_convs=1,
        concat_input=False,
        num_classes=5,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'side_branch': dict(lr_mult=3)}))  # P-pooling paper, Sec. 4.1
default_hooks = dict(logger=dict(type='LoggerHook', interval=10), checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=400))
