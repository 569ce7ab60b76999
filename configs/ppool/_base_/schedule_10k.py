_base_ = 'mmseg::_base_/schedules/schedule_20k.py'
optim_wrapper = dict(
    # 000 Sec. 4.1: 2e-7 for Caffe's loss, a sum over the pixels of an image; for mmseg's mean over them 2e-7 * 321 * 321 = 0.02
    optimizer=dict(lr=0.02),
    # side branches learn 3 times as fast (000 Sec. 4.1), the new classifier 10 times (the authors' solver)
    paramwise_cfg=dict(custom_keys={'side_branch': dict(lr_mult=3), 'decode_head': dict(lr_mult=10)}),
)
param_scheduler = [dict(type='MultiStepLR', milestones=[6000], gamma=0.1, by_epoch=False)]  # 000 Sec. 4.1; gamma is Caffe's usual 0.1
train_cfg = dict(max_iters=10000)
