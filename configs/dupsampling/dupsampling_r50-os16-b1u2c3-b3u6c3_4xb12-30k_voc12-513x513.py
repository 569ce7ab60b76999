# Table 2: b1u2c3 + b3u6c3, mIoU 73.82, decoder 1.58B FLOPS.
_base_ = './dupsampling_r50-os16_4xb12-30k_voc12-513x513.py'
model = dict(backbone=dict(taps=['layer1.1.bn3', 'layer3.5.bn3']), decode_head=dict(in_channels=[256, 1024, 2048], in_index=[0, 1, 2]))
