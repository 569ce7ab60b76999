_base_ = ['mmseg::_base_/schedules/schedule_20k.py', './side_branches.py']
optim_wrapper = dict(
    # Sec. 4.1: 2e-7 for Caffe's loss, a sum over the pixels of an image; for mmseg's mean over them 2e-7 * 321 * 321 = 0.02
    optimizer=dict(lr=0.02),
    paramwise_cfg=dict(custom_keys={**_base_.side_branches, 'decode_head': dict(lr_mult=10)}),  # the new classifier: the authors' solver
)
param_scheduler = [dict(type='MultiStepLR', milestones=[6000], gamma=0.1, by_epoch=False)]  # Sec. 4.1; gamma is Caffe's usual 0.1
train_cfg = dict(max_iters=10000)
