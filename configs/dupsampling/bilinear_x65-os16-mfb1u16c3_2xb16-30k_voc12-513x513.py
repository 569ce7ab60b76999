# Table 3, Xception-65: mIoU 78.74, decoder 0.41B FLOPS.
_base_ = ['./_base_/voc12_30k.py', './_base_/x65.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    backbone=dict(taps=['blocks_18.stack.conv3']),
    decode_head=dict(
        type='BilinearFusionHead',
        in_channels=[728, 2048],
        in_index=[0, 1],
        num_classes=21,
        align_corners=True,
    ),
)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(weight_decay=0.00004))
