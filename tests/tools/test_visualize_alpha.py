"""The tool draws a segmentor's orders from a config and a checkpoint as mmengine writes it."""

import sys

import demo
import numpy as np
import pytest
import torch
import visualize_alpha
from PIL import Image

pytest.importorskip('mmseg')


def test_draws_once(tmp_path, monkeypatch, capsys):
    from mmengine.config import Config
    from mmengine.logging import HistoryBuffer
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    config = demo.CONFIGS / 'fcn_ppool-unet_1xb4-1000i_shapes-160x160.py'
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmseg'):
        state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=cfg.metainfo.to_dict()), message_hub=HistoryBuffer()), tmp_path / 'weights.pth')
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8)).save(tmp_path / 'image.png')
    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', raising=False)
    arguments = [config, *(tmp_path / name for name in ('weights.pth', 'image.png', 'alpha.png'))]
    monkeypatch.setattr(sys, 'argv', ['visualize_alpha', *map(str, arguments)])
    visualize_alpha.main()
    with Image.open(tmp_path / 'alpha.png') as picture:
        assert min(picture.size) > 400
    with pytest.raises(SystemExit):
        visualize_alpha.main()
    assert 'must not exist; pass --overwrite to replace' in capsys.readouterr().err
