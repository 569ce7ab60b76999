_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# norm_cfg: the base freezes all norms, but the LIPs and the 1x1 convolutions behind them start fresh
model = dict(backbone=dict(type='LIPResNet', norm_cfg=dict(requires_grad=True)))
