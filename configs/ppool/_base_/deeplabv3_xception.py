# Table 4: Xception-38, 16s, ASPP. The authors' head narrows to 308 channels before its two separable convolutions; mmseg's, used here, to 256
_base_ = 'mmseg::_base_/models/deeplabv3plus_r50-d8.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),  # timm's legacy_xception
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='PPoolXception',
        pool=dict(type='PolynomialPool2d', alpha_range=(0.0, 50.0)),  # the authors' code clips at 50 and more for this network
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/legacy_xception.pth'),
    ),
    # Deeplabv3 has no decoder: no low-level features; dilations for stride 16
    decode_head=dict(in_index=0, c1_in_channels=0, c1_channels=0, channels=256, dilations=(1, 6, 12, 18)),
    auxiliary_head=None,
)
