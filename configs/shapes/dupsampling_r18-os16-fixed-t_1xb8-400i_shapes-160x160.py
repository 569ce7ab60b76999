_base_ = './dupsampling_r18-os16_1xb8-400i_shapes-160x160.py'
model = dict(decode_head=dict(upsample=dict(learn_temperature=False)))  # DUpsampling's paper, Section 4.1.4
