_base_ = 'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# downsample_layers.0 is the patch embedding: at stride 1 it would run on sixteen times as many pixels
model = dict(backbone=dict(type='Repooled', backbone='mmpretrain.ConvNeXt', pool=dict(type='PolynomialPool2d'), where=r'downsample_layers\.[123]\.1'))
