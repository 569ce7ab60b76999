_base_ = ['mmpretrain::_base_/models/resnet101.py', './_base_/in1k_90e.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 4
