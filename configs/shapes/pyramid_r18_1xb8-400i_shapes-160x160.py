_base_ = ['mmseg::_base_/models/fcn_r50-d8.py', 'mmseg::_base_/default_runtime.py', './_base_/shapes_seg.py', './_base_/schedule_400i_seg.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    pretrained=None,
    backbone=dict(_delete_=True, type='ResNet', depth=18, base_channels=16, norm_cfg=dict(type='BN')),
    decode_head=dict(
        _delete_=True,
        type='PyramidRepresentationHead',
        in_channels=[16, 32, 64, 128],
        in_index=(0, 1, 2, 3),
        input_transform='resize_concat',
        channels=64,
        context=dict(type='CoarseToFineContext', key_channels=32, pool_scales=(1, 3, 5)),  # the coarsest level has 5 x 5 cells
        num_classes=5,
        norm_cfg=dict(type='BN'),
    ),
    auxiliary_head=None,
)
optim_wrapper = dict(optimizer=dict(lr=0.015))  # chosen for the finest level alone (docs/study)
test_evaluator = dict(type='BoundaryIoUMetric', distance=3, fill_void=True)  # the paper's 8 pixels are for images three times as large
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=400))
