# Table 3, Xception-65: mIoU 78.70, decoder 5.53B FLOPS.
_base_ = ['./_base_/voc12_30k.py', './_base_/x65.py']
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(
    backbone=dict(taps=['blocks_1.stack.conv2']),
    decode_head=dict(
        type='BilinearFusionHead',
        in_channels=[256, 2048],
        in_index=[0, 1],
        num_classes=21,
        align_corners=True,
    ),
)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(weight_decay=0.00004))
