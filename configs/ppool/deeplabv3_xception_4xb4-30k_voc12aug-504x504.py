_base_ = './deeplabv3_ppool-xception_4xb4-30k_voc12aug-504x504.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(pool=None))  # Tables 2, 3 and 5, without P-pooling
