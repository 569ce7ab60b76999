# The same on COCO-Stuff 10K: HRNet-OCR's 110 epochs, its learning rate, ten times that for what is not the backbone.
_base_ = './hr48_4xb4-150k_ade20k-512x512.py'
dataset = dict(type='COCOStuffDataset', data_root='data/coco_stuff10k', reduce_zero_label=True)
train_prefix = dict(img_path='images/train2014', seg_map_path='annotations/train2014')
test_prefix = dict(img_path='images/test2014', seg_map_path='annotations/test2014')
train_dataloader = dict(dataset=dict(dataset, data_prefix=train_prefix))
val_dataloader = dict(dataset=dict(dataset, data_prefix=test_prefix))
test_dataloader = dict(dataset=dict(dataset, data_prefix=test_prefix))
train_cfg = dict(max_iters=60000, val_interval=6000)
optim_wrapper = dict(optimizer=dict(lr=0.001), paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=10.0))))
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=60000, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=6000))
