_base_ = './densenet121_4xb64_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# 002 Table 4
model = dict(backbone=dict(_delete_=True, type='LIPDenseNet', depth=121, out_indices=(3,)))
