_base_ = './resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 1, Bottleneck-128; Tables 2 A and 3 A; Table 4
model = dict(backbone=dict(type='LIPResNet'))
