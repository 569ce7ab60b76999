_base_ = './dupsampling_r18-os16_1xb8-400i_shapes-160x160.py'
model = dict(backbone=dict(taps=['stem.8', 'layer1.1.norm2']), decode_head=dict(in_channels=[16, 16, 128], in_index=[0, 1, 2]))
