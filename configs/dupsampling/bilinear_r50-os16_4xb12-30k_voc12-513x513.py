# Table 1: bilinear upsampling at stride 16, mIoU 72.15.
_base_ = ['./_base_/voc12_30k.py', './_base_/r50.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    decode_head=dict(
        type='BilinearFusionHead',
        in_channels=2048,
        num_classes=21,
        align_corners=True,
    ),
)
