# Table 3: the vanilla decoder, mIoU 73.26, decoder 5.53B FLOPS.
_base_ = './bilinear_r50-os16_4xb12-30k_voc12-513x513.py'
model = dict(backbone=dict(taps=['layer1.1.bn3']), decode_head=dict(in_channels=[256, 2048], in_index=[0, 1]))
