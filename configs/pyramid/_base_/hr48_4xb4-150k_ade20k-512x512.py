# HRNet-W48 on ADE20K with HRNet-OCR's schedule, whose figures the paper quotes; its own is in a supplement that we have not seen.
_base_ = 'mmseg::hrnet/fcn_hr48_4xb4-160k_ade20k-512x512.py'  # crops of 512 for HRNet-OCR's 520: the coarsest stride must divide them
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
views = [
    [dict(type='Resize', scale_factor=ratio, keep_ratio=True) for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)],
    [dict(type='RandomFlip', prob=0.0, direction='horizontal'), dict(type='RandomFlip', prob=1.0, direction='horizontal')],
    [dict(type='ResizeToMultiple', size_divisor=32)],
    [dict(type='LoadAnnotations')],
    [dict(type='PackSegInputs')],
]
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=views)]
train_cfg = dict(max_iters=150000, val_interval=15000)
optim_wrapper = dict(optimizer=dict(lr=0.02, weight_decay=0.0001))
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=150000, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=15000))
