_base_ = ['mmseg::_base_/models/fcn_r50-d8.py', 'mmseg::_base_/default_runtime.py', './_base_/shapes_seg.py', './_base_/schedule_400i_seg.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    pretrained=None,
    # every pooling and strided convolution is replaced: those of the stem and of three stages with their shortcuts
    backbone=dict(
        _delete_=True,
        type='Repooled',
        backbone='ResNet',
        pool=dict(type='PolynomialPool2d'),
        depth=18,
        stem_channels=16,
        base_channels=16,
        norm_cfg=dict(type='BN'),
    ),
    decode_head=dict(
        in_channels=[16, 32, 64, 128],
        in_index=(0, 1, 2, 3),
        input_transform='resize_concat',
        channels=64,
        num_convs=1,
        concat_input=False,
        num_classes=5,
        norm_cfg=dict(type='BN'),
    ),
    auxiliary_head=None,
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'side_branch': dict(lr_mult=3)}))  # P-pooling paper, Sec. 4.1
default_hooks = dict(logger=dict(type='LoggerHook', interval=10), checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=400))
