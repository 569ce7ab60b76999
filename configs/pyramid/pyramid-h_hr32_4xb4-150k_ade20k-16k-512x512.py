_base_ = './pyramid_hr48_4xb4-150k_ade20k-512x512.py'
model = dict(
    pretrained='open-mmlab://msra/hrnetv2_w32',
    backbone=dict(
        extra=dict(
            stage2=dict(num_channels=(32, 64)),
            stage3=dict(num_channels=(32, 64, 128)),
            stage4=dict(num_channels=(32, 64, 128, 256)),
        )
    ),
    decode_head=dict(in_channels=[32, 64, 128, 256]),
)
# lists by tools/dataset_converters/split_ade20k.py: four fifths of the training images to train, the rest to evaluate
held_out = dict(ann_file='train_4k.txt', data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'))
train_dataloader = dict(dataset=dict(ann_file='train_16k.txt'))
val_dataloader = dict(dataset=held_out)
test_dataloader = dict(dataset=held_out)
val_evaluator = dict(type='BoundaryIoUMetric')
test_evaluator = dict(type='BoundaryIoUMetric')
