# Table 5, third round: VOC trainval at a learning rate of 0.0001, mIoU 88.1 on VOC test. tools/test.py --tta writes the label maps to submit.
_base_ = './dupsampling_x65-os16-mfb1u16c3_2xb16-30k_voc12aug-513x513.py'
load_from = 'work_dirs/dupsampling_x65-os16-mfb1u16c3_2xb16-30k_voc12aug-513x513/iter_30000.pth'
train_dataloader = dict(dataset=dict(data_prefix=dict(seg_map_path='SegmentationClass'), ann_file='ImageSets/Segmentation/trainval.txt'))
optim_wrapper = dict(optimizer=dict(lr=0.0001))
val_dataloader = None  # no labelled image is held out
val_cfg = None
val_evaluator = None
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]  # the test set has no labels
test_dataloader = dict(dataset=dict(ann_file='ImageSets/Segmentation/test.txt', pipeline=test_pipeline))
test_evaluator = dict(format_only=True, output_dir='work_dirs/dupsampling_x65-os16-mfb1u16c3_voc12test')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=factor, keep_ratio=True) for factor in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
