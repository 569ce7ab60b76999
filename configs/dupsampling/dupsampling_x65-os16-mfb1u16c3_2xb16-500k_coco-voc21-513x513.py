# Table 5, first of three rounds: COCO in VOC's classes (tools/dataset_converters/coco_to_voc21.py).
_base_ = './dupsampling_x65-os16-mfb1u16c3_2xb16-30k_voc12-513x513.py'
model = dict(decode_head=dict(upsample=dict(weight='work_dirs/dupsampling/coco-voc21_r16_c128.pth')))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(640, 640), ratio_range=(0.5, 2.0), keep_ratio=True),  # COCO images are 640 long: 1 is their own size
    dict(type='RandomCrop', crop_size=(513, 513), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    dataset=dict(
        data_root='data/coco',
        data_prefix=dict(img_path='train2017', seg_map_path='voc21/train2017'),
        ann_file='voc21/train2017.txt',
        pipeline=pipeline,
    ),
)
default_hooks = dict(checkpoint=dict(interval=20000, max_keep_ckpts=3))  # 330 MB each
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=500000, by_epoch=False)]
train_cfg = dict(max_iters=500000, val_interval=20000)
