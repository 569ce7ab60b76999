# ResNet-50 with a 64-64-128 stem at stride 16. The ImageNet checkpoint has 32-32-64: the stem and what reads it start fresh.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(513, 513),
    ),
    backbone=dict(
        type='Tapped',
        backbone='mmseg.ResNetV1c',
        taps=[],
        depth=50,
        stem_channels=128,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        norm_cfg=dict(type='BN'),  # statistics of the 12 images of one GPU, as in the paper
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet50_v1c'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
