_base_ = 'mmdet::retinanet/retinanet_r101_fpn_2x_coco.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(type='LIPResNet', init_cfg=dict(checkpoint='checkpoints/lip-resnet101_in1k.pth')))
