_base_ = './faster-rcnn_lip-r101_fpn_2x_coco.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# Table 6, LIP-ResNet-101-MD: all 27 3x3 convolutions of conv3 to conv5 deform, without modulation
model = dict(
    backbone=dict(dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False), stage_with_dcn=(False, True, True, True)),
)
