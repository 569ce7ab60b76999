_base_ = ['mmseg::_base_/default_runtime.py', './_base_/r18_os16.py', './_base_/shapes_seg.py', './_base_/schedule_400i_seg.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    decode_head=dict(
        type='DUpsamplingHead',
        in_channels=128,
        channels=64,
        num_classes=5,
        dilations=(1, 2, 4),
        upsample=dict(in_channels=64, scale_factor=16, weight='work_dirs/demo/dupsampling/shapes_r16_c64.pth'),
    ),
)
# Twice the learning rate: Adam moves every value by about the rate in a step, and 400 steps are few for T.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'temperature': dict(decay_mult=0.0, lr_mult=2.0)}))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100, max_keep_ckpts=1),
)
