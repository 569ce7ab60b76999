"""``build_backbone`` finds a name in every place that it promises, and says where it looked."""

import copy
import importlib.util
import os
import pickle
import subprocess
import sys

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


@pytest.mark.parametrize('codebase', ['mmdet', 'mmseg', 'mmpretrain'])
def test_a_class_or_a_config_builds_what_the_name_builds(codebase):
    """New-style configs hold classes, and a config of the backbone is what people have at hand."""
    pytest.importorskip(codebase)
    named_one = build_backbone(f'{codebase}.ResNet', **DEPTH18)
    cls = type(named_one)
    configs = [dict(type=f'{codebase}.ResNet', **DEPTH18), dict(type=cls, depth=18)]
    for net in (build_backbone(cls, **DEPTH18), build_backbone(configs[0]), build_backbone(configs[1], num_stages=4)):
        assert type(net) is cls
        assert [(name, value.shape) for name, value in net.state_dict().items()] == [(name, v.shape) for name, v in named_one.state_dict().items()]
    assert configs[0]['depth'] == 18


@pytest.mark.parametrize('backbone', [None, {}, dict(depth=18), 18])
def test_neither_name_nor_class_nor_config_is_an_error(backbone):
    with pytest.raises(TypeError, match='build_backbone: backbone must be a name, a class or a config with a type, but got'):
        build_backbone(backbone)


def test_an_argument_in_the_config_and_beside_it_is_an_error():
    with pytest.raises(TypeError, match='build_backbone: arguments must be given once, but got depth in the config of the backbone and beside it'):
        build_backbone(dict(type='mmseg.ResNet', depth=18), depth=50)


def test_a_class_that_lacks_an_argument_is_named():
    mmseg = pytest.importorskip('mmseg.models')
    with pytest.raises(TypeError, match=r'arguments must be those of ResNet, but got another: .*in_chans'):
        build_backbone(mmseg.ResNet, depth=18, in_chans=1)


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


def test_an_argument_that_the_network_lacks_is_an_error_that_names_the_way_out():
    pytest.importorskip('timm')
    for argument in (dict(in_channels=4), dict(frozen_stages=1), dict(norm_eval=True)):
        message = rf"those of timm.resnet18, but got another: .*'{next(iter(argument))}'; timm has in_chans for in_channels.*_delete_=True"
        with pytest.raises(TypeError, match=message):
            build_backbone('timm.resnet18', **argument)


@pytest.fixture
def published(tmp_path):
    """What stands in for timm's download: a file for the tag of resnet18's weights, written by the test, and the arguments that point there."""
    timm = pytest.importorskip('timm')
    torch.manual_seed(1)
    torch.save(timm.create_model('resnet18').state_dict(), tmp_path / 'weights.pth')
    return torch.load(tmp_path / 'weights.pth'), dict(pretrained=True, pretrained_cfg_overlay=dict(file=str(tmp_path / 'weights.pth')))


def test_weights_of_timm_are_loaded_by_init_weights_not_when_built(published, tmp_path):
    """So that a checkpoint is tested without a download."""
    weights, arguments = published
    missing = dict(arguments, pretrained_cfg_overlay=dict(file=str(tmp_path / 'missing.pth')))
    network = build_backbone('timm.resnet18.a1_in1k', **missing)
    with pytest.raises(FileNotFoundError):
        network.init_weights()
    network = build_backbone('timm.resnet18.a1_in1k', **arguments)
    assert not torch.equal(network.conv1.weight, weights['conv1.weight'])
    for one in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network), network):
        assert not torch.equal(one.conv1.weight, weights['conv1.weight'])
        one.init_weights()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in one.state_dict().items())


def test_a_module_that_holds_a_timm_backbone_loads_its_weights(published):
    weights, arguments = published

    class Segmentor(BaseModule):
        def __init__(self, backbone):
            super().__init__()
            self.backbone = backbone

    pool = dict(type='PolynomialPool2d')
    backbones = [
        MODELS.build(dict(type='Tapped', backbone='timm.resnet18', taps=['layer1'], **arguments)),
        MODELS.build(dict(type='Repooled', backbone='timm.resnet18', pool=pool, **arguments)),
    ]
    for backbone in backbones:
        own = {name: tensor.clone() for name, tensor in backbone.state_dict().items() if 'side_branch' in name}
        model = Segmentor(backbone)
        model.init_weights()
        found = backbone.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in weights.items() if not name.startswith('fc.'))
        assert all(torch.equal(found[name], tensor) for name, tensor in own.items())
    assert len(own) > 10


def test_other_image_channels_take_over_timms_weights_as_timm_does(published):
    weights, arguments = published
    network = build_backbone('timm.resnet18', in_chans=1, **arguments)
    network.init_weights()
    torch.testing.assert_close(network.conv1.weight, weights['conv1.weight'].sum(1, keepdim=True))


def test_an_unknown_tag_names_the_known_ones():
    pytest.importorskip('timm')
    message = "a tag must be one of gluon_in1k for timm.resnet50s, but got 'timm.resnet50s.tf_in1k'"
    with pytest.raises(ValueError, match=message):
        build_backbone('timm.resnet50s.tf_in1k')


CODEBASE = """
from mmengine.registry import MODELS as ROOT, Registry
MODELS = Registry('model', parent=ROOT, scope='mmrotate', locations=['mmrotate.models'])
"""
MODELS_OF_CODEBASE = """
from mmengine.model import BaseModule
from torch import nn
from .registry import MODELS

@MODELS.register_module()
class Turning(nn.Conv2d):
    pass

@MODELS.register_module()
class ReResNet(BaseModule):
    def __init__(self, width):
        super().__init__()
        self.conv = MODELS.build(dict(type='Turning', in_channels=3, out_channels=width, kernel_size=1))

    def forward(self, input):
        return (self.conv(input),)
"""


@pytest.mark.parametrize('name', ['ReResNet', 'mmrotate.ReResNet'])
def test_backbones_of_any_codebase_are_found(name, tmp_path):
    """In a process of its own: a codebase that is imported once stays in the registries."""
    (tmp_path / 'mmrotate').mkdir()
    for file, text in (('__init__', ''), ('registry', CODEBASE), ('models', MODELS_OF_CODEBASE)):
        (tmp_path / 'mmrotate' / f'{file}.py').write_text(text)
    code = (
        'from mmpool_ext.backbones.named import build_backbone\n'
        f'net = build_backbone({name!r}, width=5)\n'
        'print(type(net).__module__, type(net.conv).__name__)'
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], env=environment, capture_output=True, text=True)
    assert run.stdout.split() == ['mmrotate.models', 'Turning'], run.stderr
