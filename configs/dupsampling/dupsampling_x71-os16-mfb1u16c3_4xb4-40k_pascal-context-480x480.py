# Table 6: mIoU 52.5. Schedule, crop and batch are mmseg's for this data set; the paper gives none.
_base_ = [
    'mmseg::_base_/datasets/pascal_context.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_40k.py',
    './_base_/x65.py',
]
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(480, 480)),
    backbone=dict(backbone='timm.xception71', taps=['blocks_20.stack.conv3']),
    decode_head=dict(
        type='DUpsamplingHead',
        in_channels=[728, 2048],
        in_index=[0, 1],
        num_classes=60,
        upsample=dict(in_channels=256, scale_factor=16, weight='work_dirs/dupsampling/pascal-context_r16_c256.pth'),
        align_corners=True,
    ),
)
optim_wrapper = dict(
    optimizer=dict(lr=0.007, weight_decay=0.00004),
    paramwise_cfg=dict(custom_keys={'temperature': dict(decay_mult=0.0)}),
)
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=40000, by_epoch=False)]
train_cfg = dict(max_iters=40000)
