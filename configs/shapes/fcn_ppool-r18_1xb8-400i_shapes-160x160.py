_base_ = './fcn_r18_1xb8-400i_shapes-160x160.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Every pooling and strided convolution is replaced: those of the stem and of three stages with their shortcuts.
model = dict(backbone=dict(type='Repooled', backbone='ResNet', pool=dict(type='PolynomialPool2d')))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'side_branch': dict(lr_mult=3)}))  # P-pooling paper, Sec. 4.1
