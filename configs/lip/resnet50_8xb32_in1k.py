_base_ = ['mmpretrain::_base_/models/resnet50.py', './_base_/in1k_90e.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 1, strided convolution; Table 3 E; Table 4
