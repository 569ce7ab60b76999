# Table 4: mIoU 79.36, decoder 43.65B FLOPS at 1025 x 2049.
_base_ = ['./_base_/cityscapes_90k.py', './_base_/x65.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(769, 769)),
    backbone=dict(backbone='timm.xception71.tf_in1k', taps=['blocks_1.stack.conv2']),
    decode_head=dict(
        type='BilinearFusionHead',
        in_channels=[256, 2048],
        in_index=[0, 1],
        num_classes=19,
        align_corners=True,
    ),
)
