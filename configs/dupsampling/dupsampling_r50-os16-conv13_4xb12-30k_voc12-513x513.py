# Table 2: conv1_3, mIoU 72.70, decoder 1.13B FLOPS.
_base_ = './dupsampling_r50-os16_4xb12-30k_voc12-513x513.py'
model = dict(backbone=dict(taps=['act1']), decode_head=dict(in_channels=[128, 2048], in_index=[0, 1]))
