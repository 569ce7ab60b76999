_base_ = [
    './_base_/deeplabv3_xception.py',
    './_base_/voc12aug_504x504.py',
    'mmseg::_base_/default_runtime.py',
    './_base_/schedule_30k_xception.py',
]
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(data_preprocessor=dict(size=(504, 504)), decode_head=dict(num_classes=21))
