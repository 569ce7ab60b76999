"""The configs of LIP are what configs/lip/recipes.yml says."""

import pytest

pytest.importorskip('mmengine')
import recipes

GROUPS = recipes.read('lip')
CONFIGS = sorted((recipes.CONFIGS / 'lip').glob('*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_is_the_recipe(path):
    pytest.importorskip('mmdet' if 'coco' in path.stem else 'mmpretrain')
    assert recipes.problems(path, GROUPS) == []


def test_densenet_starts_as_he_prescribes():
    """mmpretrain's own class leaves its convolutions at 0.41 of that, and the paper's baseline would be a weaker one."""
    pytest.importorskip('mmpretrain')
    from mmengine.config import Config
    from mmengine.registry import MODELS
    from torch import nn

    network = MODELS.build(Config.fromfile(recipes.CONFIGS / 'lip' / 'densenet121_4xb64_in1k.py').model.backbone)
    network.init_weights()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    shares = [conv.weight.std().item() / (2 / conv.weight[0].numel()) ** 0.5 for conv in convolutions]
    assert len(shares) == 120
    assert min(shares) > 0.95
    assert max(shares) < 1.05
