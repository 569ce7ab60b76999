"""The configs of P-pooling are what configs/ppool/recipes.yml says, and what these recipes do to its parameters and to images."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

pytest.importorskip('mmengine')
import recipes
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope

import mmpool_ext  # noqa: F401 registers the names

FOLDER = recipes.CONFIGS / 'ppool'
GROUPS = recipes.read('ppool')
SCHEDULES = {
    'VOC, 10k': 'fcn_ppool-vgg16_4xb5-10k_voc12aug-321x321',
    'Cityscapes, 20k': 'fcn_ppool-vgg16_4xb2-20k_cityscapes-512x1024',
    'ADE20K, 40k': 'fcn_ppool-vgg16_4xb4-40k_ade20k-512x512',
    'Xception, 30k': 'deeplabv3_ppool-xception_4xb4-30k_voc12aug-504x504',
}


@pytest.mark.parametrize('path', sorted(FOLDER.glob('*.py')), ids=lambda path: path.stem)
def test_config_is_the_recipe(path: Path):
    pytest.importorskip('mmseg')
    assert recipes.problems(path, GROUPS) == []


def test_metafile_has_every_config():
    models = yaml.safe_load((FOLDER / 'metafile.yml').read_text())['Models']
    assert sorted(model['Name'] for model in models) == sorted(path.stem for path in FOLDER.glob('*.py'))
    assert [model['Config'] for model in models] == [f'configs/ppool/{model["Name"]}.py' for model in models]


@pytest.mark.parametrize('name', ['fcn_ppool-vgg16_4xb5-10k_voc12aug-321x321', 'deeplabv3_ppool-xception_4xb4-30k_voc12aug-504x504'])
def test_images_of_voc_keep_their_size_and_colours(name, tmp_path):
    """A factor of 1 leaves 375 x 500 as it is, where mmseg's scale of (2048, 512) made it 512 x 683, in tests too."""
    pytest.importorskip('mmseg')
    from mmseg.registry import TRANSFORMS

    init_default_scope('mmseg')
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    image = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    Image.fromarray(image[..., ::-1]).save(tmp_path / 'image.png')
    Image.fromarray(image[..., 0] % 21).save(tmp_path / 'label.png')
    info = dict(
        img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'label.png'), reduce_zero_label=False, seg_fields=[], label_map=None
    )

    def run(pipeline):
        results = dict(info)
        for step in pipeline:
            results = TRANSFORMS.build(step)(results)
        return results['inputs'].permute(1, 2, 0).numpy(), results['data_samples']

    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        tested, sample = run(loader.dataset.pipeline)
        assert (tested == image).all()
        assert sample.gt_sem_seg.shape == (375, 500)
    for part in cfg.train_dataloader.dataset.datasets:
        resize = next(step for step in part.pipeline if step.type == 'RandomResize')
        assert resize.ratio_range == (0.5, 2.0)
        resize.ratio_range = (1.0, 1.0)
        trained, sample = run([step for step in part.pipeline if step.type not in ('RandomCrop', 'RandomFlip')])
        assert (trained == image).all()


class Segmentor(nn.Module):
    """A config's backbone under its name in a segmentor, with something for the head."""

    def __init__(self, cfg):
        super().__init__()
        init_default_scope('mmseg')
        cfg.model.backbone.init_cfg = None
        if cfg.model.backbone.type == 'PPoolVGG':
            cfg.model.backbone.fc_channels = 8
        self.backbone = MODELS.build(cfg.model.backbone)
        self.decode_head = nn.Conv2d(8, 8, 1)


@pytest.fixture(params=SCHEDULES)
def recipe(request):
    pytest.importorskip('mmseg')
    cfg = Config.fromfile(FOLDER / f'{SCHEDULES[request.param]}.py')
    torch.manual_seed(0)
    return request.param, cfg, Segmentor(cfg)


def schedule(cfg, optim_wrapper):
    for scheduler in cfg.param_scheduler:
        scheduler.setdefault('end', cfg.train_cfg.max_iters)
    return [PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optim_wrapper)) for scheduler in cfg.param_scheduler]


@pytest.mark.parametrize('paramwise', [True, False], ids=['as shipped', 'decay on everything'])
def test_alpha_stays_where_it_began_when_nothing_but_decay_moves_it(recipe, paramwise):
    """The whole schedule with gradients of zero. With the start in the last bias, alpha ended at 2.9, 4.1, 0.82 and 0.05."""
    name, cfg, model = recipe
    if not paramwise:
        del cfg.optim_wrapper.paramwise_cfg
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    pools = [module for module in model.modules() if type(module).__name__ == 'PolynomialPool2d']
    pool = max(pools, key=lambda pool: pool.side_branch.initial_alpha)  # Xception's strides start at 0.01
    input = torch.rand(1, pool.in_channels, 16, 16)
    start = pool.side_branch(100 * input).detach()
    first = pool.side_branch.initial_alpha
    assert start.mean().item() == pytest.approx(first, abs=0.1)

    groups = optim_wrapper.optimizer.param_groups
    for group in groups:  # the other layers would take minutes
        group['params'] = [p for p in group['params'] if any(p is own for own in pool.parameters())]
    groups[:] = [group for group in groups if group['params']]
    schedulers = schedule(cfg, optim_wrapper)
    for parameter in pool.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(cfg.train_cfg.max_iters):
        optim_wrapper.optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    end = pool.side_branch(100 * input)
    print(f'{name}: mean alpha {start.mean():.2f} before, {end.mean():.2f} after')
    assert (end - first).abs().max() <= (start - first).abs().max()


def test_rates_and_decays_of_the_parameters(recipe):
    _, cfg, model = recipe
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    lr, decay = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay
    assert decay == 0.0005
    found = {name: (groups[index]['lr'] / lr, groups[index]['weight_decay']) for index, (name, _) in enumerate(model.named_parameters())}
    for name, (factor, decays) in found.items():
        if 'side_branch' in name:
            assert factor == pytest.approx(3), name
            assert decays == (0 if name.endswith(('.1.weight', '.2.bias')) else decay), name
        else:
            head = 10 if name.startswith('decode_head') and cfg.train_cfg.max_iters == 10000 else 1
            assert (factor, decays) == (pytest.approx(head), decay), name
    assert sum(name.endswith('side_branch.2.bias') for name in found) >= 5


def test_parameters_of_detail_preserving_pooling_do_not_decay():
    pytest.importorskip('mmseg')
    cfg = Config.fromfile(FOLDER / 'fcn_dpp-r50_4xb2-20k_cityscapes-512x1024.py')
    model = Segmentor(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decays = {name: groups[index]['weight_decay'] for index, (name, _) in enumerate(model.named_parameters())}
    own = {name: value for name, value in decays.items() if name.endswith(('log_alpha', 'log_lambda'))}
    assert len(own) == 8
    assert set(own.values()) == {0}
    assert {value for name, value in decays.items() if name not in own} == {0.0005}
