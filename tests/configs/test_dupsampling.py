"""The configs of DUpsampling are what configs/dupsampling/recipes.yml says, and what these recipes do to images and to the temperature."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

pytest.importorskip('mmseg')
import recipes
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.utils import register_all_modules
from torch import nn

import mmpool_ext

FOLDER = recipes.CONFIGS / 'dupsampling'
GROUPS = recipes.read('dupsampling')
CONFIGS = sorted(FOLDER.glob('*.py'))


@pytest.fixture(autouse=True)
def mmseg_scope():
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_is_the_recipe(path: Path):
    assert recipes.problems(path, GROUPS) == []


def test_metafile_and_readme_name_every_config():
    models = yaml.safe_load((FOLDER / 'metafile.yml').read_text())['Models']
    assert [model['Name'] for model in models] == [path.stem for path in CONFIGS]
    readme = (FOLDER / 'README.md').read_text()
    assert [path.stem for path in CONFIGS if f'({path.name})' not in readme] == []


def run(pipeline, image, label):
    results = dict(img_path=str(image), seg_map_path=str(label), reduce_zero_label=False, seg_fields=[], label_map=None)
    for step in pipeline:
        results = TRANSFORMS.build(step)(results)
    return results


@pytest.mark.parametrize(
    ('pattern', 'size'),
    [
        ('dupsampling_r50-os16_4*', (375, 500)),
        ('*coco-voc21*', (480, 640)),
        ('*x71*_cityscapes-*', (1024, 2048)),
        ('*x65*_pascal-context-*', (375, 500)),
    ],
)
def test_images_keep_their_size_and_colours(pattern, size, tmp_path):
    """In tests, and in training at a factor of 1. mmseg's scales for VOC, Cityscapes and Context are others, and change colours."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(image[..., ::-1]).save(tmp_path / 'image.png')
    Image.fromarray(np.zeros(size, dtype=np.uint8)).save(tmp_path / 'label.png')
    for path in FOLDER.glob(f'{pattern}.py'):
        cfg = Config.fromfile(path)
        pipeline = cfg.train_dataloader.dataset.pipeline
        next(step for step in pipeline if step.type == 'RandomResize').ratio_range = (1.0, 1.0)
        trained = [step for step in pipeline if step.type not in ('RandomCrop', 'RandomFlip')]
        for steps in (trained, cfg.val_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline):
            assert (run(steps, tmp_path / 'image.png', tmp_path / 'label.png')['inputs'].permute(1, 2, 0).numpy() == image).all()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_views_for_testing_can_be_built(path, tmp_path):
    """``tools/test.py --tta`` of mmseg wants a ``tta_pipeline`` and a ``tta_model``: PASCAL Context has none upstream."""
    cfg = Config.fromfile(path)
    assert cfg.tta_model.type == 'SegTTAModel'
    Image.fromarray(np.zeros((40, 50, 3), dtype=np.uint8)).save(tmp_path / 'image.png')
    Image.fromarray(np.zeros((40, 50), dtype=np.uint8)).save(tmp_path / 'label.png')
    views = run(cfg.tta_pipeline, tmp_path / 'image.png', tmp_path / 'label.png')['inputs']
    assert len(views) == 12


def test_the_last_round_evaluates_nothing_that_it_trains_on():
    cfg = Config.fromfile(next(FOLDER.glob('*trainval*')))
    assert cfg.val_dataloader is cfg.val_cfg is cfg.val_evaluator is None
    assert cfg.test_dataloader.dataset.ann_file.endswith('test.txt')


def test_temperature_alone_has_no_decay():
    cfg = Config.fromfile(FOLDER / 'dupsampling_r50-os16_4xb12-30k_voc12-513x513.py')
    model = nn.Module()
    model.decode_head = nn.Module()
    model.decode_head.upsample = mmpool_ext.layers.DUpsampling(8, 3, 4)
    model.decode_head.reduce = nn.Conv2d(4, 8, 1)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    found = {name: groups[index]['weight_decay'] for index, (name, _) in enumerate(model.named_parameters())}
    assert found == {'decode_head.upsample.log_temperature': 0, 'decode_head.reduce.weight': 1e-4, 'decode_head.reduce.bias': 1e-4}


def test_each_round_starts_from_the_last_checkpoint_of_the_round_before():
    """ "Each round is initialized with the last round model" (Section 4.2): COCO, SBD, trainval."""
    rounds = [next(FOLDER.glob(f'*{name}*')) for name in ('500k_coco-voc21', '30k_voc12aug', '30k_voc12trainval')]
    configs = [Config.fromfile(path) for path in rounds]
    assert 'load_from' not in rounds[0].read_text()
    for path, before, after in zip(rounds, configs, configs[1:], strict=False):
        assert after.load_from == f'work_dirs/{path.stem}/iter_{before.train_cfg.max_iters}.pth'
        assert before.train_cfg.max_iters % before.default_hooks.checkpoint.interval == 0
    assert len({config.model.decode_head.upsample.weight for config in configs}) == 1


@pytest.mark.parametrize('path', sorted(FOLDER.glob('dupsampling_*.py')), ids=lambda path: path.stem)
def test_the_file_of_w_is_named_after_its_data_stride_and_channels(path):
    """So that one fit serves every config of the same name, and a changed stride or width asks for another file."""
    cfg = Config.fromfile(path)
    upsample = cfg.model.decode_head.upsample
    data = 'coco-voc21' if path.stem.endswith(('voc12aug-513x513', 'voc12trainval-513x513')) else path.stem.rsplit('_', 1)[1].rsplit('-', 1)[0]
    assert upsample.weight == f'work_dirs/dupsampling/{data}_r{upsample.scale_factor}_c{upsample.in_channels}.pth'
    assert upsample.scale_factor == (32 if '-os32' in path.stem else 16)
    batch = path.stem.split('_')[2].split('-')[0].split('x')
    assert int(batch[1].removeprefix('b')) == cfg.train_dataloader.batch_size
    assert int(batch[0]) * cfg.train_dataloader.batch_size == (32 if '_x' in path.stem else 48)


def test_defaults_of_the_heads_are_those_of_the_recipes():
    """The recipes tell of widths, start, norms and loss that no config repeats."""
    from mmpool_ext.backbones.label_encoder import LabelEncoder
    from mmpool_ext.decode_heads.dupsampling_head import BilinearFusionHead, DUpsamplingHead

    def defaults(cls):
        return {name: parameter.default for name, parameter in inspect.signature(cls.__init__).parameters.items()}

    expected = dict(
        channels=256,
        low_level_channels=48,
        dilations=(1, 6, 12, 18),
        norm_cfg=dict(type='BN'),
        init_cfg=dict(type='Normal', std=0.1, layer='Conv2d'),
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )
    assert expected.items() <= defaults(BilinearFusionHead).items()
    assert defaults(DUpsamplingHead)['channels'] == expected['channels']
    assert not {*expected, 'dropout_ratio'} & {*defaults(DUpsamplingHead)} - {'channels'}
    assert defaults(BaseDecodeHead)['dropout_ratio'] == 0.1
    assert defaults(LabelEncoder)['init_cfg'] == expected['init_cfg']
    heads = [Config.fromfile(path).model.decode_head for path in CONFIGS]
    assert not [head for head in heads if {*expected, 'dropout_ratio'} & {*head} - {'dilations'}]


@pytest.mark.parametrize('network', ['r50', 'x65', 'x71'])
def test_every_weight_of_the_backbone_comes_from_imagenet(network, tmp_path):
    """A file of the network's published shapes stands in for the download: after init_weights nothing of the backbone is left random."""
    timm = pytest.importorskip('timm')
    cfg = Config.fromfile(next(path for path in CONFIGS if f'dupsampling_{network}-os16' in path.stem))
    name = cfg.model.backbone.backbone.removeprefix('timm.')
    torch.manual_seed(0)
    with torch.device('meta'):
        shapes = timm.create_model(name).state_dict()
    weights = {key: torch.randn(tensor.shape) if tensor.is_floating_point() else torch.tensor(1) for key, tensor in shapes.items()}
    torch.save(weights, tmp_path / 'weights.pth')
    backbone = MODELS.build(dict(cfg.model.backbone, pretrained_cfg_overlay=dict(file=str(tmp_path / 'weights.pth'))))
    backbone.init_weights()
    found = backbone.state_dict()
    assert len(found) > 300
    sums = {tensor.double().sum().item() for tensor in weights.values() if tensor.ndim}
    assert [key for key, tensor in found.items() if tensor.ndim and tensor.double().sum().item() not in sums] == []
