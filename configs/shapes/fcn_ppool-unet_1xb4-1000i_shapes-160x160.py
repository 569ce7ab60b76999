_base_ = ['mmseg::_base_/default_runtime.py', './_base_/unet.py', './_base_/shapes_seg.py', './_base_/schedule_1000i_seg.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# The four poolings of the encoder are replaced, and the strided convolution before them is left.
model = dict(backbone=dict(type='Repooled', backbone='UNet', pool=dict(type='PolynomialPool2d'), where=r'encoder\.[1-4]\.0'))
train_dataloader = dict(batch_size=4)
# P-pooling paper, Sec. 4.1; no decay on the PReLU and the last bias, as in the authors' trainer
still = dict(lr_mult=3, decay_mult=0)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'side_branch': dict(lr_mult=3), 'side_branch.1.weight': still, 'side_branch.2.bias': still}))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1000))
