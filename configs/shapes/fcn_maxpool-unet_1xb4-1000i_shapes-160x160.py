_base_ = './fcn_ppool-unet_1xb4-1000i_shapes-160x160.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(pool=dict(type='MaximumPool2d')))
