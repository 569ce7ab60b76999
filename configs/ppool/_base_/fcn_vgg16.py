# Sec. 4.1: VGG-16 without pool5's stride, bilinear upsampling at the end. Head not stated: VGG's own fc6 and fc7 as convolutions, one classifier
_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='PPoolVGG',
        pool=dict(type='PolynomialPool2d'),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://vgg16'),
    ),
    # fc6 and fc7 have VGG's own dropout
    decode_head=dict(in_channels=4096, in_index=0, channels=4096, num_convs=0, concat_input=False, dropout_ratio=0),
    auxiliary_head=None,
)
