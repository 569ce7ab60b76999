_base_ = './resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 1, DPP in its authors' structure
model = dict(backbone=dict(type='LIPResNet', pool=dict(type='DetailPreservingPool2d'), stem_lip=False, pool_block_output=True))
