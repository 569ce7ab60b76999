"""Every config in the tree is parsed, built, and run forward and backward on a tiny input."""

import copy
import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

CONFIGS = sorted((Path(__file__).parents[1] / 'configs').rglob('*.py'))
DETECTORS = [path for path in CONFIGS if '_fpn_' in path.name and 'test-dev' not in path.name]
TEST_DEV = [path for path in CONFIGS if 'test-dev' in path.name]
CLASSIFIERS = [path for path in CONFIGS if path.stem.endswith('_in1k')]
PPOOL = [path for path in CONFIGS if path.parent.name == 'ppool']


@functools.cache
def parse(path):
    return Config.fromfile(path)


def load(path):
    return copy.deepcopy(parse(path))


def name(path):
    return path.stem


@pytest.mark.parametrize('path', [path for path in CONFIGS if '_base_' not in path.parts], ids=name)
def test_is_a_short_delta(path):
    code = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith('#')]
    assert len(code) <= 25
    cfg = load(path)
    assert 'mmpool_ext' in cfg.custom_imports.imports
    assert cfg.model.type


@pytest.mark.parametrize('path', [path for path in CONFIGS if '_base_' not in path.parts and path not in CLASSIFIERS], ids=name)
def test_inference_functions_read_the_pipeline_of_the_test(path):
    """mmseg's inference_model reads the name test_pipeline, everything else the data set's own pipeline."""
    cfg = load(path).to_dict()
    inherited = [{key: value for key, value in step.items() if key != '_scope_'} for step in cfg['test_pipeline']]
    assert inherited == [{key: value for key, value in step.items() if key != '_scope_'} for step in cfg['test_dataloader']['dataset']['pipeline']]


@pytest.mark.parametrize('path', DETECTORS, ids=name)
def test_detector_trains_a_step(path):
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs

    cfg = load(path)
    init_default_scope('mmdet')
    cfg.model.backbone.update(init_cfg=None, frozen_stages=-1)
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    edge = 96 if 'dconv' in path.stem else 64  # mmcv's deformable convolution wants 3x3 pixels at least
    batch = model.data_preprocessor(demo_mm_inputs(2, [[3, edge, edge]] * 2, num_classes=4), True)
    losses = model(**batch, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
    model.eval()
    with torch.no_grad():
        assert len(model(**model.data_preprocessor(demo_mm_inputs(1, [[3, edge, edge]]), False), mode='predict')) == 1


def test_md_has_27_deformable_convolutions_without_modulation():
    """LIP paper, Table 6: every 3x3 convolution of conv3 to conv5."""
    deform = pytest.importorskip('mmcv.ops').DeformConv2d
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS

    cfg = load(next(path for path in CONFIGS if path.stem == 'faster-rcnn_lip-r101-dconv-c3-c5_fpn_2x_coco'))
    init_default_scope('mmdet')
    with torch.device('meta'):
        network = MODELS.build(cfg.model.backbone)
    deforming = {name for name, module in network.named_modules() if isinstance(module, deform)}
    assert len(deforming) == 27
    assert deforming == {
        name for name, module in network.named_modules() if re.fullmatch(r'layer[234]\.\d+\.conv2', name) and tuple(module.kernel_size) == (3, 3)
    }


@pytest.mark.parametrize('path', TEST_DEV, ids=name)
def test_submission_for_test_dev(path, tmp_path):
    pytest.importorskip('mmdet')
    from mmdet.registry import DATASETS, METRICS

    cfg = load(path)
    init_default_scope('mmdet')
    assert cfg.model == load(path.with_name(path.name.replace('_test-dev', ''))).model
    images = [dict(id=7 + index, file_name=f'{index}.jpg', height=48, width=64) for index in range(2)]
    categories = [dict(id=index, name=label) for index, label in enumerate(DATASETS.get('CocoDataset').METAINFO['classes'], 1)]
    file = tmp_path / cfg.test_dataloader.dataset.ann_file
    file.parent.mkdir()
    file.write_text(json.dumps(dict(images=images, categories=categories)))
    (tmp_path / 'test2017').mkdir()
    for image in images:
        Image.new('RGB', (64, 48)).save(tmp_path / 'test2017' / image['file_name'])
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    assert len(dataset) == 2
    assert dataset[0]['inputs'].shape[0] == 3

    assert cfg.test_evaluator.ann_file == f'data/coco/{cfg.test_dataloader.dataset.ann_file}'
    prefix = str(tmp_path / cfg.test_evaluator.outfile_prefix)
    Path(prefix).parent.mkdir(parents=True)
    metric = METRICS.build(dict(cfg.test_evaluator, ann_file=str(file), outfile_prefix=prefix))
    metric.dataset_meta = dataset.metainfo
    prediction = dict(bboxes=torch.tensor([[1.0, 2.0, 4.0, 8.0]]), scores=torch.tensor([0.5]), labels=torch.tensor([2]))
    metric.process({}, [dict(img_id=image['id'], ori_shape=(48, 64), pred_instances=prediction) for image in images])
    metric.evaluate(size=2)
    written = json.loads(Path(f'{prefix}.bbox.json').read_text())
    assert written == [dict(image_id=image['id'], category_id=3, bbox=[1.0, 2.0, 3.0, 6.0], score=0.5) for image in images]


@pytest.mark.parametrize('path', CLASSIFIERS, ids=name)
def test_classifier_trains_a_step(path):
    """With an eighth of ResNet's channels, on images of 32x32."""
    pytest.importorskip('mmpretrain')
    from mmpretrain.registry import MODELS
    from mmpretrain.structures import DataSample

    cfg = load(path)
    init_default_scope('mmpretrain')
    if 'DenseNet' not in cfg.model.backbone.type:
        cfg.model.backbone.update(base_channels=8)
        cfg.model.head.in_channels = 256
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    batch = dict(inputs=torch.randint(0, 256, (2, 3, 32, 32)).byte(), data_samples=[DataSample().set_gt_label(label) for label in (1, 2)])
    batch = MODELS.build(dict(cfg.data_preprocessor, type='ClsDataPreprocessor'))(batch, True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert loss.isfinite()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
    model.eval()
    with torch.no_grad():
        assert model(batch['inputs'], mode='predict')[0].pred_score.shape == (1000,)


@pytest.mark.parametrize('path', CLASSIFIERS, ids=name)
def test_recipe_of_the_lip_paper(path):
    """LIP paper 4.1; the epochs are those of the authors' code."""
    cfg = load(path)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ('SGD', 0.1, 0.9, 1e-4)
    assert not optimizer.get('nesterov')
    assert 'paramwise_cfg' not in cfg.optim_wrapper  # decay "is applied to all learnable parameters"
    assert (cfg.param_scheduler.type, list(cfg.param_scheduler.milestones), cfg.param_scheduler.gamma) == ('MultiStepLR', [30, 60, 80], 0.1)
    assert (cfg.train_cfg.by_epoch, cfg.train_cfg.max_epochs) == (True, 90)
    gpus, samples = map(int, re.search(r'_(\d+)xb(\d+)_', path.stem).groups())
    assert samples == cfg.train_dataloader.batch_size
    assert gpus * samples == cfg.auto_scale_lr.base_batch_size == 256
    assert [step['type'] for step in cfg.train_dataloader.dataset.pipeline] == ['LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'PackInputs']


@pytest.mark.parametrize('path', CLASSIFIERS, ids=name)
def test_parameters_of_the_papers_tables(path):
    """What the paper's row has, within a percent; Table 2 gives no parameters."""
    pytest.importorskip('mmpretrain')
    from mmpretrain.registry import MODELS

    metafile = yaml.safe_load((path.parent / 'metafile.yml').read_text())
    expected = next(model for model in metafile['Models'] if model['Name'] == path.stem)['Metadata'].get('Parameters (paper)')
    assert (expected is None) == ('-no-' in path.stem)
    init_default_scope('mmpretrain')
    model = MODELS.build(load(path).model)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == pytest.approx(float((expected or '23.9M')[:-1]) * 1e6, rel=0.01)


def test_no_two_classifiers_are_the_same():
    settings = [(load(path).model, load(path).get('custom_hooks')) for path in CLASSIFIERS]
    assert not [one for index, one in enumerate(settings) if one in settings[:index]]
    assert [path.stem for path, (_, hooks) in zip(CLASSIFIERS, settings, strict=True) if hooks] == ['lip-resnet50-no-norm-no-gate_8xb32_in1k']


def test_tables_of_lip_name_every_config():
    folder = next(path.parent for path in CONFIGS if path.parent.name == 'lip')
    readme, metafile = (folder / 'README.md').read_text(), yaml.safe_load((folder / 'metafile.yml').read_text())
    stems = {path.stem for path in CONFIGS if path.parent == folder}
    assert set(re.findall(r'\[config\]\(([^()]+)\.py\)', readme)) == stems
    assert {model['Name'] for model in metafile['Models']} == stems
    assert [model['Config'] for model in metafile['Models']] == [f'configs/lip/{model["Name"]}.py' for model in metafile['Models']]


@pytest.mark.parametrize('path', [path for path in CONFIGS if path.parent.name == 'dupsampling' or 'r18-os16' in path.name], ids=name)
def test_dupsampling_trains_a_step(path):
    pytest.importorskip('mmseg')
    pytest.importorskip('timm')
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    torch.manual_seed(0)
    cfg = load(path)
    init_default_scope('mmseg')
    cfg.model.backbone.pop('pretrained', None)  # no download
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

    cfg = load(path)
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

    cfg = load(path)
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

    cfg = load(next(path for path in PPOOL if path.stem == 'deeplab_ppool-vgg16-20m_4xb5-10k_voc12aug-321x321_voc12-test'))
    make_layout(tmp_path, 'voc12aug')
    for label in tmp_path.glob('Segmentation*/*.png'):
        label.unlink()
    init_default_scope('mmseg')
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    data = DATASETS.build(cfg.test_dataloader.dataset)
    assert len(data) == 2
    assert data[1]['inputs'].shape[0] == 3
    assert cfg.test_evaluator.format_only
