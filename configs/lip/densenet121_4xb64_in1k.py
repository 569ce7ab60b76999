_base_ = ['mmpretrain::_base_/models/densenet/densenet121.py', './_base_/in1k_90e.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# 002 Table 4
train_dataloader = dict(batch_size=64)
