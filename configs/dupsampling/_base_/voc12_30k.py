# VOC 2012 train (1,464 images), 513 x 513 crops at scales 0.5 to 2, flips; poly schedule of 30k iterations (Section 4, implementation details).
_base_ = ['mmseg::_base_/datasets/pascal_voc12.py', 'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_40k.py']
crop_size = (513, 513)  # DeepLab's; the paper gives none
train_dataloader = dict(
    batch_size=12,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(500, 500), ratio_range=(0.5, 2.0), keep_ratio=True),  # VOC images are 500 long: 1 is their own size
            dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]  # at the images' own size
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=0.007, weight_decay=0.0001),
    paramwise_cfg=dict(custom_keys={'temperature': dict(decay_mult=0.0)}),
)
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=30000, by_epoch=False)]
train_cfg = dict(max_iters=30000, val_interval=3000)
default_hooks = dict(checkpoint=dict(interval=3000))
