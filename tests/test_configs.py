"""Every config in the tree is parsed, built, and run forward and backward on a tiny input."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

CONFIGS = sorted((Path(__file__).parents[1] / 'configs').rglob('*.py'))
DETECTORS = [path for path in CONFIGS if '_fpn_' in path.name]
PPOOL = [path for path in CONFIGS if path.parent.name == 'ppool']


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


@pytest.mark.parametrize('path', [path for path in CONFIGS if path.parent.name == 'dupsampling' or 'r18-os16' in path.name], ids=name)
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


def small_segmentor(path):
    """A segmentor of the P-pooling study with few channels behind the trunk, without SyncBN and weights."""
    from mmengine.model import revert_sync_batchnorm
    from mmseg.registry import MODELS

    cfg = load(path).copy()
    init_default_scope('mmseg')
    cfg.model.backbone.init_cfg = None
    if cfg.model.backbone.type == 'PPoolVGG':
        cfg.model.backbone.fc_channels = cfg.model.decode_head.in_channels = cfg.model.decode_head.channels = 8
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    return model.train()


@pytest.mark.parametrize('path', PPOOL, ids=name)
def test_ppool_segmentor_trains_a_step(path):
    """VGG has stride 16, ResNet 32 (P-pooling paper, Sec. 4.1), whatever the pooling."""
    pytest.importorskip('mmseg')
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    model = small_segmentor(path)
    classes = model.decode_head.num_classes
    assert classes == {'voc12aug': 21, 'cityscapes': 19, 'ade20k': 150}[path.stem.split('_')[3].split('-')[0]]
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in torch.randint(0, classes, (2, 1, 64, 64))]
    images = torch.rand(2, 3, 64, 64)
    (model.loss(images, samples)['decode.loss_ce']).backward()
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]
    strides = {'r50': [32], 'inceptionv2': [8, 16, 32]}  # VGG-16 and Xception: 16
    expected = next((value for network, value in strides.items() if network in path.stem), [16])
    assert [64 // feature.shape[2] for feature in model.extract_feat(images)] == expected


def make_layout(root, dataset):
    """Two images with labels as the data set's folders have them."""
    generator = np.random.default_rng(0)
    folders = {
        'voc12aug': ('JPEGImages/{}.jpg', ('SegmentationClass/{}.png', 'SegmentationClassAug/{}.png'), 21),
        'cityscapes': ('leftImg8bit/train/a/{}_leftImg8bit.png', ('gtFine/train/a/{}_gtFine_labelTrainIds.png',), 19),
        'ade20k': ('images/training/{}.jpg', ('annotations/training/{}.png',), 151),
    }
    image, labels, classes = folders[dataset]
    for stem in ('one', 'two'):
        arrays = {image: generator.integers(0, 256, (90, 120, 3)), **{label: generator.integers(0, classes, (90, 120)) for label in labels}}
        for pattern, array in arrays.items():
            path = root / pattern.format(stem)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(path)
    if dataset == 'voc12aug':
        lists = root / 'ImageSets' / 'Segmentation'
        lists.mkdir(parents=True)
        for split in ('train', 'aug', 'val', 'test'):
            (lists / f'{split}.txt').write_text('one\ntwo\n')


@pytest.mark.parametrize(
    'path',
    [path for path in PPOOL if path.stem.startswith(('fcn_ppool-vgg16', 'deeplabv3_ppool-xception_4xb4-30k')) and 'test' not in path.stem],
    ids=name,
)
def test_ppool_reads_its_data_set_and_the_loss_takes_it(path, tmp_path):
    pytest.importorskip('mmseg')
    from mmengine.dataset import pseudo_collate
    from mmengine.structures import PixelData
    from mmseg.registry import DATASETS

    cfg = load(path).copy()
    dataset = path.stem.split('_')[3].split('-')[0]
    make_layout(tmp_path, dataset)
    init_default_scope('mmseg')
    train = cfg.train_dataloader.dataset
    for part in train.get('datasets', [train]):
        part.data_root = str(tmp_path)
    data = DATASETS.build(train)
    assert len(data) == (4 if dataset == 'voc12aug' else 2)
    model = small_segmentor(path)
    batch = model.data_preprocessor(pseudo_collate([data[0], data[1]]), True)
    assert batch['inputs'].shape[2:] == cfg.model.data_preprocessor.size
    samples = batch['data_samples']
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=sample.gt_sem_seg.data[:, :64, :96])
    assert model.loss(batch['inputs'][:, :, :64, :96], samples)['decode.loss_ce'].isfinite()


def test_ppool_submission_reads_images_without_labels(tmp_path):
    pytest.importorskip('mmseg')
    from mmseg.registry import DATASETS

    cfg = load(next(path for path in PPOOL if path.stem == 'deeplab_ppool-vgg16-20m_4xb5-10k_voc12aug-321x321_voc12-test')).copy()
    make_layout(tmp_path, 'voc12aug')
    for label in tmp_path.glob('Segmentation*/*.png'):
        label.unlink()
    init_default_scope('mmseg')
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    data = DATASETS.build(cfg.test_dataloader.dataset)
    assert len(data) == 2
    assert data[1]['inputs'].shape[0] == 3
    assert cfg.test_evaluator.format_only
