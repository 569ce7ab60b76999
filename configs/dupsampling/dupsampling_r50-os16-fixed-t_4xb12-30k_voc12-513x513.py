# Section 4.1.4: vanilla softmax, T = 1, mIoU 69.81 against 73.15.
_base_ = './dupsampling_r50-os16_4xb12-30k_voc12-513x513.py'
model = dict(decode_head=dict(upsample=dict(learn_temperature=False)))
