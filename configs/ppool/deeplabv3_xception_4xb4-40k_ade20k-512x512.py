_base_ = './deeplabv3_ppool-xception_4xb4-40k_ade20k-512x512.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(pool=None))  # Tables 2, 3 and 5, without P-pooling
