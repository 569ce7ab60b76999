# Table 6: mIoU 51.4.
_base_ = ['./_base_/pascal-context_40k.py', './_base_/x65.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(480, 480)),
    backbone=dict(taps=['blocks_18.stack.conv3']),
    decode_head=dict(
        type='DUpsamplingHead',
        in_channels=[728, 2048],
        in_index=[0, 1],
        num_classes=60,
        upsample=dict(in_channels=128, scale_factor=16, weight='work_dirs/dupsampling/pascal-context_r16_c128.pth'),
        align_corners=True,
    ),
)
