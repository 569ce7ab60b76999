# Segmentors: most pixels are background, which lr=1e-3 hardly leaves in 400 iterations.
_base_ = './schedule_400i.py'
optim_wrapper = dict(optimizer=dict(lr=5e-3))
