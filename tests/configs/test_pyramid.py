from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip('mmseg')
import recipes
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import METRICS, DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

import mmpool_ext  # noqa: F401

FOLDER = Path(__file__).parents[2] / 'configs' / 'pyramid'
CONFIGS = sorted(path.name for path in FOLDER.glob('*.py'))


@pytest.fixture(autouse=True)
def mmseg_scope():
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


@pytest.mark.parametrize('name', CONFIGS)
def test_config_is_the_recipe(name):
    assert recipes.problems(FOLDER / name, recipes.read('pyramid')) == []


def build(name):
    """Build the model with its own widths and head, on a backbone of one block a branch that needs no download."""
    config = Config.fromfile(FOLDER / name)
    model = config.model
    model.pretrained = None
    for stage in ('stage1', 'stage2', 'stage3', 'stage4'):
        extra = model.backbone.extra[stage]
        extra.update(num_modules=1, num_blocks=(1,) * len(extra.num_channels))
    model.data_preprocessor.size = (64, 64)
    torch.manual_seed(0)
    return config, revert_sync_batchnorm(MODELS.build(model))


@pytest.mark.parametrize('name', CONFIGS)
def test_config_trains_a_step_and_predicts(name):
    config, model = build(name)
    num_classes = len(DATASETS.get(config.train_dataloader.dataset.type).METAINFO['classes'])
    assert model.num_classes == num_classes
    label = torch.randint(0, num_classes, (2, 1, 16, 16)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one), metainfo=meta) for one in label]
    data = model.data_preprocessor(dict(inputs=list(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)), data_samples=samples), True)
    loss, logged = model.parse_losses(model.loss(**data))
    loss.backward()
    assert torch.isfinite(loss)
    assert 'decode.acc_seg' in logged
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    model.eval()
    with torch.no_grad():
        assert model.predict(data['inputs'], samples)[0].pred_sem_seg.shape == (64, 64)
    for evaluator in config.test_evaluator if isinstance(config.test_evaluator, list) else [config.test_evaluator]:
        METRICS.build(evaluator)


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'hr48' in name])
def test_every_test_view_is_a_multiple_of_the_coarsest_stride(name):
    config = Config.fromfile(FOLDER / name)
    for pipeline in (config.val_dataloader.dataset.pipeline, config.test_dataloader.dataset.pipeline):
        assert [step.type for step in pipeline].index('ResizeToMultiple') > [step.type for step in pipeline].index('Resize')
    transforms = [[step for step in steps if step['type'] != 'LoadAnnotations'] for steps in config.tta_pipeline[1].transforms]
    views = TRANSFORMS.build(dict(config.tta_pipeline[1], transforms=[steps for steps in transforms if steps]))
    image = torch.randint(0, 256, (70, 101, 3), dtype=torch.uint8).numpy()
    results = views(dict(img=image, img_shape=(70, 101), ori_shape=(70, 101), img_path='x', seg_fields=[]))
    assert len(results['inputs']) == 14
    assert all(edge % 32 == 0 for view in results['inputs'] for edge in view.shape[1:])


def test_ablations_are_the_settings_of_table_2a():
    heads = {name[8]: Config.fromfile(FOLDER / name).model.decode_head for name in CONFIGS if name.startswith('pyramid-') and name[9] == '_'}
    contexts = {key: head.get('context', dict(type='CoarseToFineContext')) for key, head in heads.items()}
    got = {key: (contexts[key] and contexts[key]['type'], head.get('supervision', 'tp')) for key, head in heads.items()}
    ours, anl = 'CoarseToFineContext', 'AsymmetricNonLocalContext'
    assert got == dict(
        a=(None, 'finest'),
        b=(anl, 'finest'),
        c=(ours, 'finest'),
        d=(None, 'raw'),
        e=(None, 'gt'),
        f=(None, 'tp'),
        g=(anl, 'tp'),
        h=(ours, 'tp'),
        i=(ours, 'auxiliary'),
    )


def test_ablations_train_and_evaluate_on_the_two_lists():
    config = Config.fromfile(FOLDER / 'pyramid-a_hr32_4xb4-150k_ade20k-16k-512x512.py')
    train, test = config.train_dataloader.dataset, config.test_dataloader.dataset
    assert (train.ann_file, test.ann_file) == ('train_16k.txt', 'train_4k.txt')
    assert train.data_prefix == test.data_prefix
    assert Compose(test.pipeline)


def test_metafile_and_readme_name_every_config():
    metafile = yaml.safe_load((FOLDER / 'metafile.yml').read_text())
    assert sorted(Path(model['Config']).name for model in metafile['Models']) == CONFIGS
    readme = (FOLDER / 'README.md').read_text()
    assert [name for name in CONFIGS if f'({name})' not in readme] == []


@pytest.mark.parametrize('name', ['pyramid', 'fcn'])
def test_shapes_config_trains_a_step_and_predicts(name):
    config = Config.fromfile(FOLDER.parent / 'shapes' / f'{name}_r18_1xb8-400i_shapes-160x160.py')
    model = MODELS.build(config.model)
    label = torch.randint(0, 5, (2, 1, 40, 40)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one), metainfo=dict(img_shape=(160, 160), ori_shape=(160, 160))) for one in label]
    data = model.data_preprocessor(dict(inputs=list(torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)), data_samples=samples), True)
    loss, _ = model.parse_losses(model.loss(**data))
    loss.backward()
    assert torch.isfinite(loss)
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    model.backbone.eval()
    model.decode_head.eval()
    with torch.no_grad():
        assert model.predict(data['inputs'], samples)[0].pred_sem_seg.shape == (160, 160)
