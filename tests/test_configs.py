"""Every config in the tree is parsed, built, and run forward and backward on a tiny input."""

import functools
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

CONFIGS = sorted((Path(__file__).parents[1] / 'configs').rglob('*.py'))
DETECTORS = [path for path in CONFIGS if '_fpn_' in path.name]


@functools.cache
def load(path):
    return Config.fromfile(path)


def name(path):
    return path.stem


@pytest.mark.parametrize('path', [path for path in CONFIGS if '_base_' not in path.parts], ids=name)
def test_is_a_short_delta(path):
    code = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith('#')]
    assert len(code) <= 25
    cfg = load(path)
    assert 'mmpool_ext' in cfg.custom_imports.imports
    assert cfg.model.type


@pytest.mark.parametrize('path', DETECTORS, ids=name)
def test_detector_trains_a_step(path):
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs

    cfg = load(path).copy()
    init_default_scope('mmdet')
    cfg.model.backbone.update(init_cfg=None, frozen_stages=-1)
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    batch = model.data_preprocessor(demo_mm_inputs(2, [[3, 64, 64]] * 2, num_classes=4), True)
    losses = model(**batch, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
    model.eval()
    with torch.no_grad():
        assert len(model(**model.data_preprocessor(demo_mm_inputs(1, [[3, 64, 64]]), False), mode='predict')) == 1


@pytest.mark.parametrize('path', [path for path in CONFIGS if path.parent.name == 'dupsampling'], ids=name)
def test_dupsampling_trains_a_step(path):
    pytest.importorskip('mmseg')
    pytest.importorskip('timm')
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    torch.manual_seed(0)
    cfg = load(path).copy()
    init_default_scope('mmseg')
    cfg.model.backbone.update(init_cfg=None)
    if cfg.model.backbone.pop('pretrained', None):
        cfg.model.backbone.update(pretrained=False)
    if str(cfg.model.backbone.get('backbone')).startswith('timm.'):
        del cfg.model.backbone.init_cfg
    cfg.model.data_preprocessor.update(size=(65, 65))
    head = cfg.model.decode_head
    if head.type == 'DUpsamplingHead':
        assert f'_r{head.upsample.scale_factor}_c{head.upsample.in_channels}.pth' in head.upsample.pop('weight')
        head.upsample.init = 'random'
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    sizes = [(65, 65), (48, 65)]
    data_samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, head.num_classes, (1, *s))), metainfo=dict(img_shape=s)) for s in sizes]
    data = dict(inputs=[torch.randint(0, 255, (3, *size)).byte() for size in sizes], data_samples=data_samples)
    total, logged = model.parse_losses(model(**model.data_preprocessor(data, True), mode='loss'))
    total.backward()
    assert total.isfinite()
    assert ('decode.temperature' in logged) == (head.type == 'DUpsamplingHead')
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
    custom_keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert custom_keys.temperature.decay_mult == 0
