_base_ = './faster-rcnn_lip-r14_fpn_1xb8-400i_shapes-160x160.py'
model = dict(backbone=dict(stem_lip=False, stage_with_lip=(False, False, False, False), logit=None))  # LIP paper, Table 3 E
