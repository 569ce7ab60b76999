_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Sec. 4.1: SGD with plain momentum, weight decay 1e-4 on everything (both inherited); the epochs are those of the authors' imagenet/main.py
param_scheduler = dict(milestones=[30, 60, 80])
train_cfg = dict(max_epochs=90)
