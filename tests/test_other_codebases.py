"""Codebases beside mmdet, mmseg and mmpretrain, where they are installed: the names are in the root registry, so their configs find them."""

import pytest


def test_pose_estimator_with_lip_trains_a_step(tmp_path):
    """Three lines over mmpose's own config."""
    mmpose = pytest.importorskip('mmpose')
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope
    from mmpose.testing import get_packed_inputs

    config = tmp_path / 'pose.py'
    config.write_text(
        "_base_ = 'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py'\n"
        "custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)\n"
        "model = dict(backbone=dict(type='LIPResNet', init_cfg=None))\n"
    )
    with DefaultScope.overwrite_default_scope('mmpose'):
        __import__(f'{mmpose.__name__}.models')
        model = MODELS.build(Config.fromfile(config).model)
    assert type(model.backbone).__name__ == 'LIPResNet'
    data = get_packed_inputs(2, img_shape=(256, 192), input_size=(192, 256), with_heatmap=True, heatmap_size=(48, 64))
    data = model.data_preprocessor(data, training=True)
    loss = model.loss(**data)['loss_kpt']
    loss.backward()
    assert loss.isfinite()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
