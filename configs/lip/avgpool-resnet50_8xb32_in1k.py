_base_ = './resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 1, average pooling
model = dict(backbone=dict(type='LIPResNet', pool=dict(type='AveragePool2d')))
