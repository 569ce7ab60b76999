_base_ = [
    './_base_/fcn_vgg16.py',
    './_base_/voc12aug_321x321.py',
    'mmseg::_base_/default_runtime.py',
    './_base_/schedule_10k.py',
]
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(data_preprocessor=dict(size=(321, 321)), decode_head=dict(num_classes=21))
