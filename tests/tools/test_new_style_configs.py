"""Every tool that reads a config reads a new-style one: types are classes, and the data sets lie inside of wrappers."""

import importlib
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

pytest.importorskip('mmseg')
from make_shapes import make_shapes

CONFIG = """
from mmcv.transforms import LoadImageFromFile
from mmengine.config import read_base
from mmengine.dataset import ConcatDataset, DefaultSampler, InfiniteSampler, RepeatDataset
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, TestLoop
from mmseg.datasets import BaseSegDataset, PackSegInputs
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from mmseg.models import EncoderDecoder, ResNet, SegDataPreProcessor
from torch.optim import AdamW

from mmpool_ext import PolynomialPool2d, PyramidRepresentationHead, Repooled

default_scope = 'mmseg'
metainfo = dict(classes=('background', 'box', 'disc', 'sign', 'lattice'), palette=[(0, 0, 0), (99, 0, 0), (0, 99, 0), (0, 0, 99), (9, 9, 9)])
pipeline = [dict(type=LoadImageFromFile), dict(type=LoadAnnotations), dict(type=PackSegInputs)]
part = dict(
    type=BaseSegDataset, data_root={root!r}, metainfo=metainfo, ann_file='ImageSets/Segmentation/train.txt', pipeline=pipeline,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'))
both = dict(type=ConcatDataset, datasets=[part, part])
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type=InfiniteSampler), dataset=dict(type=RepeatDataset, times=2, dataset=both))
test_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False), dataset=both)
test_evaluator = dict(type=IoUMetric, iou_metrics=['mIoU'])
train_cfg = dict(type=IterBasedTrainLoop, max_iters=2)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3))
backbone = dict(type=ResNet, depth=18, base_channels=8, norm_cfg=dict(type='BN'))
head = dict(
    type=PyramidRepresentationHead, in_channels=[8, 16, 32, 64], in_index=(0, 1, 2, 3), input_transform='resize_concat', channels=8, num_classes=5,
    context=None, norm_cfg=dict(type='BN'))
model = dict(
    type=EncoderDecoder, data_preprocessor=dict(type=SegDataPreProcessor, size=(96, 96), seg_pad_val=255),
    backbone=dict(type=Repooled, backbone=backbone, pool=dict(type=PolynomialPool2d), where='maxpool'), decode_head=head,
    train_cfg=dict(), test_cfg=dict(mode='whole'))
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    from mmseg.registry import MODELS

    folder = tmp_path_factory.mktemp('new_style')
    make_shapes(folder / 'shapes', num_train=3, num_val=1, size=96)
    (folder / 'config.py').write_text(CONFIG.format(root=str(folder / 'shapes')))
    cfg = Config.fromfile(folder / 'config.py')
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=cfg.metainfo.to_dict())), folder / 'weights.pth')
    return folder


CONFIG_AND_WEIGHTS = ('config.py', 'weights.pth')
IMAGE = 'shapes/JPEGImages/val_00000.jpg'


@pytest.mark.parametrize(
    ('tool', 'arguments', 'says'),
    [
        ('check_config', ['config.py', '--no-weights', '--images', '2'], 'ok    test: predicted and evaluated 2 images'),
        ('analyze_pyramid', ['config.py'], 'labelled pixels'),
        ('fit_dupsampling', ['config.py', '--ratio', '8', '--channels', '4', '--out', 'W.pth'], f'{2 * 3 * 12 * 12} windows'),
        ('get_flops', ['config.py'], '96 x 96'),
        ('visualize_pyramid', [*CONFIG_AND_WEIGHTS, IMAGE, 'levels.png'], 'levels.png'),
        ('visualize_alpha', [*CONFIG_AND_WEIGHTS, IMAGE, 'alpha.png'], 'alpha.png'),
    ],
    ids=lambda value: value if isinstance(value, str) and ' ' not in value else '',
)
def test_tool(folder, monkeypatch, capsys, tool, arguments, says):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *arguments])
    with DefaultScope.overwrite_default_scope('mmengine'):  # the tools set one
        status = importlib.import_module(tool).main()
    assert not status
    assert says in capsys.readouterr().out
    if says.endswith('.png'):
        assert min(Image.open(folder / says).size) > 50
