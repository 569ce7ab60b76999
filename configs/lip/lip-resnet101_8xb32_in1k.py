_base_ = './resnet101_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 4
model = dict(backbone=dict(type='LIPResNet'))
