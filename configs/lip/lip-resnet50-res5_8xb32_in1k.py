_base_ = './lip-resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 3 D
model = dict(backbone=dict(stem_lip=False, stage_with_lip=(False, False, False, True)))
