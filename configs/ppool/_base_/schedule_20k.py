# The paper gives no schedule for this data set: mmseg's
_base_ = ['mmseg::_base_/schedules/schedule_20k.py', './side_branches.py']
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.side_branches))
