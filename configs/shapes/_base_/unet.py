# A small U-Net at half resolution, the 5 x 5 map of its deepest stage supervised too.
_base_ = 'mmseg::_base_/models/fcn_unet_s5-d16.py'
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    pretrained=None,
    backbone=dict(base_channels=16, strides=(2, 1, 1, 1, 1), enc_num_convs=(1, 2, 2, 2, 2), dec_num_convs=(1, 1, 1, 1), norm_cfg=dict(type='BN')),
    decode_head=dict(
        in_channels=16,
        channels=32,
        kernel_size=1,
        dropout_ratio=0.0,
        num_classes=5,
        norm_cfg=dict(type='BN'),
        loss_decode=[dict(type='CrossEntropyLoss'), dict(type='LovaszLoss', reduction='none')],
    ),
    auxiliary_head=dict(
        in_channels=256,
        in_index=0,
        dropout_ratio=0.0,
        num_classes=5,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(loss_weight=1.0),
    ),
    test_cfg=dict(_delete_=True, mode='whole'),
)
