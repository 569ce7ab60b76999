# Table 3: the vanilla decoder on the proposed one's best features; out of memory in the paper.
_base_ = './bilinear_r50-os16_4xb12-30k_voc12-513x513.py'
model = dict(backbone=dict(taps=['act1', 'layer3.5.bn3']), decode_head=dict(in_channels=[128, 1024, 2048], in_index=[0, 1, 2]))
