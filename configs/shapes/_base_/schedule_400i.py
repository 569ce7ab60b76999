# 400 iterations from a fresh start on a CPU: AdamW, a short warm-up, cosine to zero, one checkpoint at the end. The learning rate is chosen for
# the detector without LIP (docs/study).
train_cfg = dict(type='IterBasedTrainLoop', max_iters=400, val_interval=400)
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05), clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=40, end=400),
]
randomness = dict(seed=0)
