_base_ = ['mmseg::_base_/schedules/schedule_40k.py', './side_branches.py']
optim_wrapper = dict(
    optimizer=dict(lr=0.025),  # the authors' code: 1e-7 on a sum over pixels; for a mean over them 1e-7 * 504 * 504 = 0.025
    paramwise_cfg=dict(custom_keys=_base_.side_branches),
)
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=30406, by_epoch=False)]
train_cfg = dict(max_iters=30406)  # the authors' 46 epochs of 661 iterations
