_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(type='LIPResNet', init_cfg=dict(checkpoint='checkpoints/lip-resnet50_in1k.pth')))
