_base_ = [
    './_base_/fcn_r50.py',
    './_base_/cityscapes_512x1024.py',
    'mmseg::_base_/default_runtime.py',
    './_base_/schedule_20k.py',
]
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(data_preprocessor=dict(size=(512, 1024)), decode_head=dict(num_classes=19))
