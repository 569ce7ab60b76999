_base_ = './densenet121_4xb64_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 4
model = dict(backbone=dict(pool=dict(_delete_=True, type='LIPPool2d')))
