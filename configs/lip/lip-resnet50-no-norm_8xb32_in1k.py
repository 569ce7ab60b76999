_base_ = './lip-resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 2 C
model = dict(backbone=dict(logit=dict(type='BottleneckLogit', norm_cfg=None)))
