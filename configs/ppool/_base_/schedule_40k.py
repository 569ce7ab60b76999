_base_ = 'mmseg::_base_/schedules/schedule_40k.py'
# the paper gives no schedule for this data set: mmseg's, with the paper's factor for side branches (000 Sec. 4.1)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'side_branch': dict(lr_mult=3)}))
