# Table 1, upper bound 94.80: the network sees the labels. 100k iterations from a learning rate of 0.07.
_base_ = './_base_/voc12_30k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='LabelAsInput', num_classes=21, size=(513, 513)),
    backbone=dict(type='LabelEncoder', in_channels=21),
    decode_head=dict(
        type='BilinearFusionHead',
        in_channels=512,
        num_classes=21,
        dilations=None,
        align_corners=True,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(optimizer=dict(lr=0.07))
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=100000, by_epoch=False)]
train_cfg = dict(max_iters=100000, val_interval=10000)
default_hooks = dict(checkpoint=dict(interval=10000))
