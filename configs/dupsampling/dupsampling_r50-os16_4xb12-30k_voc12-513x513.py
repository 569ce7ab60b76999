# Table 1 and 2: no low-level feature, mIoU 73.15.
_base_ = ['./_base_/voc12_30k.py', './_base_/r50.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    decode_head=dict(
        type='DUpsamplingHead',
        in_channels=2048,
        num_classes=21,
        upsample=dict(in_channels=64, scale_factor=16, weight='work_dirs/dupsampling/voc12_r16_c64.pth'),
        align_corners=True,
    ),
)
