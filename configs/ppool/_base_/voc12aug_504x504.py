_base_ = 'mmseg::_base_/datasets/pascal_voc12_aug.py'
# The authors' code: images of VOC, whose longer side has 500 pixels, at 0.5 to 2 times their own size, cropped and flipped; no other augmentation.
# What is smaller than the crop is padded by the data preprocessor. They are tested at their own size.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(500, 500), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(504, 504)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=4,
    dataset=dict(datasets=[dict(_base_.dataset_train, pipeline=train_pipeline), dict(_base_.dataset_aug, pipeline=train_pipeline)]),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
