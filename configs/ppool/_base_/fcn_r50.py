# Sec. 4.1: strides of conv1, res3a, res4a and res5a removed, pools after conv1, res2c, res3d and res4f, overall stride 32
_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='PPoolResNet',
        pool=dict(type='PolynomialPool2d', alpha_range=(0.0, 50.0)),  # Fig. 6: the axis ends at 50 for ResNet
        out_indices=(3,),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    decode_head=dict(in_channels=2048, in_index=0, channels=2048, num_convs=0, concat_input=False),
    auxiliary_head=None,
)
