# Table 4: InceptionV2-BN with FCN-8s; Sec. 4.2: every down-sampling and every pool of stride 1 is replaced
_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    # the public bninception checkpoints take BGR images of 0 to 255 without their mean
    data_preprocessor=dict(mean=[104, 117, 128], std=[1, 1, 1], bgr_to_rgb=False),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='PPoolInceptionV2',
        pool=dict(type='PolynomialPool2d'),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/bninception.pth'),
    ),
    decode_head=dict(_delete_=True, type='FCN8sHead', in_channels=(320, 608, 1024), dropout_ratio=0.5, loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=None,
)
