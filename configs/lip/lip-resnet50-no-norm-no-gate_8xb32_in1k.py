_base_ = './lip-resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 2 D
model = dict(backbone=dict(logit=dict(type='BottleneckLogit', norm_cfg=None, gate_scale=None)))
custom_hooks = [dict(type='AveragePoolingWarmupHook', num_iters=2000)]
