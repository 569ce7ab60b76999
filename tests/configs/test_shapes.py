"""The shapes configs: upstream's inference functions from an empty folder on an image whose size no stride divides, and half precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from releases import HALF

CONFIGS = sorted((Path(__file__).parents[2] / 'configs' / 'shapes').glob('*.py'))
SEGMENTORS = [path for path in CONFIGS if 'rcnn' not in path.name]
IMAGE = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)


def name(path):
    return path.stem


def load(path):
    cfg = Config.fromfile(path)
    if 'upsample' in cfg.model.get('decode_head', {}):  # the way that the message names where there is no W
        cfg.merge_from_dict({'model.decode_head.upsample': dict(init='random', weight=None)})
    return cfg


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('path', SEGMENTORS, ids=name)
def test_segmentors_infer(path):
    pytest.importorskip('mmseg')
    from mmseg.apis import MMSegInferencer, inference_model, init_model

    cfg = load(path)
    model = init_model(cfg, device='cpu')
    assert inference_model(model, IMAGE).pred_sem_seg.shape == IMAGE.shape[:2]
    inferencer = MMSegInferencer(cfg, classes=cfg.metainfo.classes, palette=cfg.metainfo.palette, device='cpu')
    assert inferencer(IMAGE, return_datasamples=True).pred_sem_seg.shape == IMAGE.shape[:2]


@pytest.mark.parametrize('path', [path for path in CONFIGS if path not in SEGMENTORS], ids=name)
def test_detectors_infer(path):
    pytest.importorskip('mmdet')
    from mmdet.apis import DetInferencer, inference_detector, init_detector

    results = [inference_detector(init_detector(path, device='cpu'), IMAGE)]
    results += DetInferencer(str(path), device='cpu', show_progress=False)(IMAGE, return_datasamples=True)['predictions']
    for result in results:
        boxes = result.pred_instances.bboxes
        assert len(boxes) > 0
        assert boxes[:, 2].max() <= 150
        assert boxes[:, 3].max() <= 120


@pytest.mark.parametrize('autocast', [False, True], ids=['cast', 'autocast'])
@pytest.mark.parametrize('dtype', [HALF, torch.bfloat16])
@pytest.mark.parametrize('path', SEGMENTORS, ids=name)
def test_half_precision(path, dtype, autocast):
    """Every head gives in half precision what it gives in float32."""
    pytest.importorskip('mmseg')
    from mmseg.apis import init_model

    cfg = load(path)
    torch.manual_seed(0)
    model, images = init_model(cfg, device='cpu'), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model.predict(images)[0].seg_logits.data
        with torch.autocast('cpu', dtype=dtype, enabled=autocast):
            logits = (model if autocast else model.to(dtype)).predict(images if autocast else images.to(dtype))[0].seg_logits.data
    assert logits.dtype == dtype
    assert (logits - expected).abs().max() < 16 * torch.finfo(dtype).eps * expected.abs().max()
