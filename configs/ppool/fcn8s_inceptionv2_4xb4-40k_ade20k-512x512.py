_base_ = './fcn8s_ppool-inceptionv2_4xb4-40k_ade20k-512x512.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(pool=None))  # Tables 2, 3 and 5 (Cityscapes: supplement, Fig. 2), without P-pooling
