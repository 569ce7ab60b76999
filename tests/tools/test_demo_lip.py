"""The LIP demo's picture of what LIP weights."""

import demo
import demo_lip
import pytest
import torch
from make_shapes import make_shapes
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

pytest.importorskip('mmdet')


def test_draws_the_trained_logits_above_those_of_the_start(tmp_path, monkeypatch):
    from mmdet.registry import MODELS

    monkeypatch.setattr(demo, 'SHAPES', tmp_path / 'shapes')
    monkeypatch.setattr(demo_lip, 'WORK_DIR', tmp_path)
    make_shapes(tmp_path / 'shapes', num_train=0, num_val=1, size=64)
    name = demo_lip.ROWS['LIP']
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(demo.CONFIGS / f'{name}.py').model)
    (tmp_path / name).mkdir()
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / name / 'weights.pth')
    (tmp_path / name / 'last_checkpoint').write_text(str(tmp_path / name / 'weights.pth'))
    assert min(Image.open(demo_lip.draw_importance()).size) > 500
