_base_ = ['mmpretrain::_base_/models/densenet/densenet121.py', './_base_/in1k_90e.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 4. Not mmpretrain's class, which leaves its convolutions at 0.41 times He's standard deviation
model = dict(backbone=dict(_delete_=True, type='LIPDenseNet', depth=121, pool=None, out_indices=(3,)))
train_dataloader = dict(batch_size=64)
