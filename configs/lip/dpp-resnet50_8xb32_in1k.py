_base_ = './resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 1, DPP in the structure of Fig. 4c
model = dict(backbone=dict(type='LIPResNet', pool=dict(type='DetailPreservingPool2d')))
