_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
# frozen_stages and norm_cfg: the base freezes the stem and all norms, but the LIPs and the 1x1 convolutions behind them start fresh
model = dict(backbone=dict(type='LIPResNet', frozen_stages=-1, norm_cfg=dict(requires_grad=True)))
