"""configs/recipes: today's networks with a pooling of this package are built and trained a step, and nothing but the pooling is new."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
from mmpool_ext import LIPPool2d, PolynomialPool2d

EDGE = 128
FOLDER = Path(__file__).parents[2] / 'configs' / 'recipes'
POOLS = {
    'rtmdet_lip-cspnext-tiny_8xb32-300e_coco': (LIPPool2d, 2),
    'yolox-s_lip_8xb8-300e_coco': (LIPPool2d, 2),
    'dino-4scale_lip-r50_8xb2-12e_coco': (LIPPool2d, 7),
    'mask2former_lip-r50_8xb2-lsj-50e_coco': (LIPPool2d, 7),
    'upernet_ppool-convnext-tiny_8xb2-amp-160k_ade20k-512x512': (PolynomialPool2d, 3),
}


def test_every_recipe_is_here_and_in_the_readme():
    assert {path.stem for path in FOLDER.glob('*.py')} == set(POOLS)
    assert all(f'({name}.py)' in (FOLDER / 'README.md').read_text() for name in POOLS)


def batch(cfg, edge):
    """Two images with what the codebase's head learns from."""
    if cfg.default_scope == 'mmseg':
        from mmseg.structures import SegDataSample

        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=torch.randint(150, (1, edge, edge))), metainfo=dict(img_shape=(edge, edge))) for _ in range(2)
        ]
        return dict(inputs=[torch.randint(256, (3, edge, edge), dtype=torch.uint8) for _ in range(2)], data_samples=samples)
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, [[3, edge, edge]] * 2, num_classes=80, with_mask='mask2former' in cfg.filename)


@pytest.mark.parametrize('name', POOLS)
def test_trains_a_step(name):
    torch.manual_seed(0)
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    init_default_scope(cfg.default_scope)
    cls, count = POOLS[name]
    cfg.model.backbone.init_cfg = None
    preprocessor = cfg.model.data_preprocessor
    preprocessor.pop('batch_augments', None)  # pads to 1024 pixels, or asks the runner for the iteration
    if 'size' in preprocessor:
        preprocessor.size = (EDGE, EDGE)
    if 'num_queries' in cfg.model:
        cfg.model.num_queries = 20  # of DINO: 900 are more than a small image has positions
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    model.init_weights()
    pools = [module for module in model.modules() if isinstance(module, cls)]
    assert len(pools) == count
    data = model.data_preprocessor(batch(cfg, EDGE), True)
    total, _ = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    assert total.isfinite()
    for pool in pools:
        for key, parameter in pool.named_parameters():
            assert parameter.requires_grad, key
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
