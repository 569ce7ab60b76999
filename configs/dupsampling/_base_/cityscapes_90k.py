# Section 4, "for all Xception-based experiments": 32 images, norms over 16 of them, weight decay 0.00004, scales 0.5 to 2 and flips. Section
# 4.1.3: 90k iterations from 0.01. The crop is DeepLab's; the paper gives none.
_base_ = ['mmseg::_base_/datasets/cityscapes_769x769.py', 'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_80k.py']
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),  # 1 is the images' own size
    dict(type='RandomCrop', crop_size=(769, 769), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]  # at the images' own size
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=0.00004), paramwise_cfg=dict(custom_keys={'temperature': dict(decay_mult=0.0)}))
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=90000, by_epoch=False)]
train_cfg = dict(max_iters=90000)
