_base_ = [
    './_base_/fcn8s_inceptionv2.py',
    './_base_/ade20k_512x512.py',
    'mmseg::_base_/default_runtime.py',
    './_base_/schedule_40k.py',
]
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(data_preprocessor=dict(size=(512, 512)), decode_head=dict(num_classes=150))
