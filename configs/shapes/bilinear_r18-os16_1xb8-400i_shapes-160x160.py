_base_ = './dupsampling_r18-os16_1xb8-400i_shapes-160x160.py'
model = dict(
    decode_head=dict(_delete_=True, type='BilinearFusionHead', in_channels=128, channels=64, num_classes=5, dilations=(1, 2, 4)),
)
