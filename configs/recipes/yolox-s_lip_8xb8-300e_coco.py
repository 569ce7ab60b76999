_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
lip = dict(type='LIPPool2d', kernel_size=3, padding=1, ceil_mode=False, logit=dict(type='ProjectionLogit'))
model = dict(backbone=dict(type='Repooled', backbone='mmdet.CSPDarknet', pool=lip, where=r'stage[34]\.0\.conv'))
