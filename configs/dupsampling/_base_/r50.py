# ResNet-50 with a 64-64-128 stem (Table 2's conv1_3 has 128 channels) at stride 16, with timm's ImageNet weights for that stem.
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
        backbone='timm.resnet50s.gluon_in1k',  # its norms are not synchronised: statistics of the 12 images of one GPU, as in the paper
        taps=[],
        output_stride=16,
        out_indices=(4,),
        pretrained=True,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
