_base_ = './fcn_ppool-vgg16_4xb5-10k_voc12aug-321x321.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(pool_stages=(4,)))  # Table 6: pool5 alone
