# A small U-Net at half resolution. Strides 8 and 16 tell a box from a disc: those stages see further, by dilation, and are supervised too.
_base_ = 'mmseg::_base_/models/fcn_unet_s5-d16.py'
loss = [dict(type='CrossEntropyLoss'), dict(type='TverskyLoss', alpha=0.5, beta=0.5)]  # the second weighs the classes alike, small or large
head = dict(
    type='FCNHead',
    num_convs=1,
    concat_input=False,
    dropout_ratio=0.0,
    num_classes=5,
    norm_cfg=dict(type='BN'),
    align_corners=False,
    loss_decode=loss,
)
model = dict(
    data_preprocessor=dict(size=(160, 160), test_cfg=dict(size_divisor=32)),  # mmseg's UNet refuses other sizes
    pretrained=None,
    backbone=dict(
        base_channels=16,
        strides=(2, 1, 1, 1, 1),
        enc_num_convs=(1, 2, 2, 2, 2),
        dec_num_convs=(1, 1, 1, 1),
        enc_dilations=(1, 1, 2, 2, 1),
        upsample_cfg=dict(type='InterpConv', conv_first=True),
        norm_cfg=dict(type='BN'),
    ),
    decode_head=dict(**head, in_channels=16, channels=32, kernel_size=1),
    auxiliary_head=[dict(**head, in_channels=128, in_index=1, channels=64), dict(**head, in_channels=64, in_index=2, channels=32)],
    test_cfg=dict(_delete_=True, mode='whole'),
)
