_base_ = './fcn_ppool-vgg16_4xb4-40k_ade20k-512x512.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(pool=dict(_delete_=True, type='AveragePool2d')))  # Table 1, "Average"
