_base_ = [
    './_base_/fcn_vgg16.py',
    './_base_/ade20k_512x512.py',
    'mmseg::_base_/default_runtime.py',
    './_base_/schedule_40k.py',
]
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    # Sec. 4.2: 1,024 channels and dilated 3x3 kernels; 6 at stride 16 is Deeplab's 12 at stride 8
    backbone=dict(fc_channels=1024, fc6_kernel_size=3, fc6_dilation=6),
    decode_head=dict(in_channels=1024, channels=1024, num_classes=150),
)
