"""``build_backbone`` finds a name in every place that it promises, and says where it looked."""

import importlib.util

import mmengine
import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmpool_ext.backbones import named
from mmpool_ext.backbones.named import build_backbone

DEPTH18 = dict(depth=18, num_stages=4)


@pytest.fixture
def root_only():
    """A class in the root registry under a name that mmseg uses too."""

    @MODELS.register_module(name='ResNet')
    class RootResNet(BaseModule):
        def __init__(self, depth):
            super().__init__()
            self.conv = nn.Conv2d(3, depth, 1)

    yield RootResNet
    MODELS.module_dict.pop('ResNet')


@pytest.mark.parametrize('codebase', ['mmdet', 'mmseg', 'mmpretrain'])
def test_a_codebase_may_be_named(codebase):
    pytest.importorskip(codebase)
    assert type(build_backbone(f'{codebase}.ResNet', **DEPTH18)).__module__.startswith(f'{codebase}.')


@pytest.mark.parametrize('codebase', ['mmdet', 'mmseg', 'mmpretrain'])
def test_a_bare_name_prefers_the_default_scope(codebase):
    pytest.importorskip(codebase)
    with DefaultScope.overwrite_default_scope(codebase):
        assert type(build_backbone('ResNet', **DEPTH18)).__module__.startswith(f'{codebase}.')


def test_a_bare_name_is_found_in_another_codebase_and_built_in_its_scope():
    pytest.importorskip('mmseg')
    mmpretrain = pytest.importorskip('mmpretrain')
    with DefaultScope.overwrite_default_scope('mmseg'):
        net = build_backbone('DenseNet', arch='121')  # only mmpretrain has it
    assert isinstance(net, mmpretrain.models.DenseNet)


def test_the_root_registry_comes_before_other_codebases(root_only):
    assert isinstance(build_backbone('ResNet', depth=4), root_only)
    with DefaultScope.overwrite_default_scope('mmengine'):
        assert isinstance(build_backbone('ResNet', depth=4), root_only)


def test_a_class_path_is_imported():
    assert isinstance(build_backbone('torch.nn.Conv2d', in_channels=1, out_channels=2, kernel_size=1), nn.Conv2d)


def test_timm_returns_a_tuple_and_keeps_its_keys():
    timm = pytest.importorskip('timm')
    net = build_backbone('timm.resnet18', out_indices=(1, 4))
    features = net(torch.zeros(1, 3, 64, 64))
    assert isinstance(features, tuple)
    assert [tuple(f.shape[1:]) for f in features] == [(64, 16, 16), (512, 2, 2)]
    assert net.state_dict().keys() < timm.create_model('resnet18').state_dict().keys()
    whole = build_backbone('timm.resnet18', features_only=False, num_classes=5)(torch.zeros(1, 3, 64, 64))
    assert whole[0].shape == (1, 5)


@pytest.mark.parametrize(
    ('codebase', 'name', 'message'),
    [
        ('mmengine', 'ResNett', r"must be registered in one of mmengine.* or read timm.<model>, but got 'ResNett'; close to it: .*ResNet"),
        ('mmseg', 'mmseg.ResNett', r"must be registered in mmseg, but got 'mmseg.ResNett'; close to it: .*ResNet"),
        ('timm', 'timm.resnet19', r"must be a model of timm, but got 'timm.resnet19'; close to it: .*resnet18"),
        ('mmengine', 'nowhere.at.all.Net', r"must be an importable class path, but got 'nowhere.at.all.Net'"),
    ],
)
def test_unknown_names_are_errors(codebase, name, message):
    pytest.importorskip(codebase)
    with pytest.raises(ValueError, match=f'build_backbone: backbone {message}'):
        build_backbone(name)


def test_a_config_is_an_error():
    with pytest.raises(TypeError, match='build_backbone: backbone must be a name, but got dict'):
        build_backbone(dict(type='ResNet'))


@pytest.mark.parametrize('codebase', ['mmdet', 'mmseg', 'mmpretrain', 'timm'])
def test_a_missing_codebase_is_an_error(monkeypatch, codebase):
    monkeypatch.setattr(named, 'find_spec', lambda name: None if name == codebase else importlib.util.find_spec(name))
    with pytest.raises(RuntimeError, match=f"build_backbone: {codebase} must be installed for '{codebase}.*resnet', but there is no such module"):
        build_backbone(f'{codebase}.resnet')


def test_a_broken_codebase_is_an_error(monkeypatch):
    pytest.importorskip('mmseg')

    def broken(name):
        raise AssertionError('MMCV==9 is used but incompatible')

    monkeypatch.setattr(named.importlib, 'import_module', broken)
    with pytest.raises(RuntimeError, match=r"build_backbone: mmseg must be importable to look for 'mmseg.ResNet' in it, .* AssertionError: MMCV==9"):
        build_backbone('mmseg.ResNet')


def test_mmengine_is_the_root_scope():
    assert named.ROOT == 'mmengine' == mmengine.registry.MODELS.scope
