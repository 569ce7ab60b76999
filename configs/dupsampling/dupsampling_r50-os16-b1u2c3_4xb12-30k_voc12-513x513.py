# Table 2: b1u2c3, mIoU 74.03, decoder 1.15B FLOPS.
_base_ = './dupsampling_r50-os16_4xb12-30k_voc12-513x513.py'
model = dict(backbone=dict(taps=['layer1.1.bn3']), decode_head=dict(in_channels=[256, 2048], in_index=[0, 1]))
