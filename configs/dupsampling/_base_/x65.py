# Xception-65 at stride 16, from the ImageNet weights of DeepLab's authors, ported to timm. Its norms are not synchronised: statistics of one GPU.
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
    backbone=dict(type='Tapped', backbone='timm.xception65.tf_in1k', taps=[], output_stride=16, out_indices=(4,), pretrained=True),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
