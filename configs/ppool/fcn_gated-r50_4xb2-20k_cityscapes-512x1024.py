_base_ = './fcn_ppool-r50_4xb2-20k_cityscapes-512x1024.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(pool=dict(_delete_=True, type='GatedPool2d')))  # Table 1, "Gated": one mask a layer
