# For batches of four.
_base_ = './schedule_400i_seg.py'
train_cfg = dict(max_iters=640, val_interval=640)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=640),
]
