_base_ = './lip-resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 1, Bottleneck-256
model = dict(backbone=dict(logit=dict(type='BottleneckLogit', mid_channels=256)))
