# Table 1: DUpsampling at stride 32, mIoU 72.09.
_base_ = './dupsampling_r50-os16_4xb12-30k_voc12-513x513.py'
model = dict(
    backbone=dict(output_stride=32),
    decode_head=dict(
        dilations=(1, 3, 6, 9), upsample=dict(scale_factor=32, weight='work_dirs/dupsampling/voc12_r32_c64.pth')
    ),  # half the rates at half the resolution; the paper gives none
)
