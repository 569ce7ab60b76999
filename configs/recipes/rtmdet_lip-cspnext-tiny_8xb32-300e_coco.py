_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# stage1 and stage2 run on large maps, where a convolution at stride 1 is expensive; the poolings of the SPP block have no stride
lip = dict(type='LIPPool2d', kernel_size=3, padding=1, ceil_mode=False, logit=dict(type='ProjectionLogit'))
model = dict(backbone=dict(type='Repooled', backbone='mmdet.CSPNeXt', pool=lip, where=r'stage[34]\.0\.conv'))
