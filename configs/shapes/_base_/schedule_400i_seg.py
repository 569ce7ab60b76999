# Segmentors: the learning rate is chosen for bilinear upsampling in DUpsampling's network (docs/study).
_base_ = './schedule_400i.py'
optim_wrapper = dict(optimizer=dict(lr=5e-3))
