# Xception-65 at stride 16 with timm's ImageNet weights.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(513, 513),
    ),
    backbone=dict(type='Tapped', backbone='timm.xception65', taps=[], output_stride=16, out_indices=(4,), pretrained=True),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
