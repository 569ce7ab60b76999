# A quarter-width ResNet-18 at stride 16 for the DUpsampling demo.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(160, 160),
    ),
    backbone=dict(
        type='Tapped',
        backbone='mmseg.ResNetV1c',
        taps=[],
        depth=18,
        base_channels=16,
        stem_channels=16,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        norm_cfg=dict(type='BN'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
