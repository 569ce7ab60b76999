"""Repooled on networks of every codebase: it runs, keeps shapes and keys, and its pools start as they should."""

import copy
import io
import logging
import re

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F

import mmpool_ext  # noqa: F401 registers the names
from mmpool_ext.backbones.named import build_backbone
from mmpool_ext.layers import MaximumPool2d, PolynomialPool2d

HRNET = dict(
    stage1=dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(1,), num_channels=(8,)),
    stage2=dict(num_modules=1, num_branches=2, block='BASIC', num_blocks=(1, 1), num_channels=(8, 16)),
    stage3=dict(num_modules=1, num_branches=3, block='BASIC', num_blocks=(1, 1, 1), num_channels=(8, 16, 32)),
    stage4=dict(num_modules=1, num_branches=4, block='BASIC', num_blocks=(1, 1, 1, 1), num_channels=(8, 16, 32, 64)),
)
RESNET_PLACES = ['conv1', 'maxpool', *(f'layer{stage}.0.{conv}' for stage in (2, 3, 4) for conv in ('conv2', 'downsample.0'))]
NETWORKS = {
    'mmdet.ResNet': (dict(depth=50), RESNET_PLACES),
    'mmseg.HRNet': (dict(extra=HRNET), None),
    'mmpretrain.DenseNet': (dict(arch='121'), ['stem.0', 'stem.3', *(f'transitions.{i}.pool' for i in range(3))]),
    'mmpretrain.VGG': (dict(depth=11), [f'features.{i}' for i in (1, 3, 6, 9, 12)]),
    'timm.resnet18': (dict(), [place.replace('0.conv2', '0.conv1') for place in RESNET_PLACES]),
}
POOL = dict(type='PolynomialPool2d')


def repooled(backbone, pool=POOL, **kwargs):
    return MODELS.build(dict(type='Repooled', backbone=backbone, pool=pool, **kwargs))


@pytest.fixture(params=NETWORKS)
def network(request):
    pytest.importorskip(request.param.split('.')[0])
    return request.param, *NETWORKS[request.param]


def test_any_network_runs_keeps_shapes_gets_gradients_and_loads_its_checkpoint(network):
    name, arguments, places = network
    torch.manual_seed(0)
    original, net = build_backbone(name, **arguments), repooled(name, **arguments)
    report = net.load_state_dict(original.state_dict(), strict=False)
    pools = {key for key, module in net.named_modules() if isinstance(module, PolynomialPool2d)}
    assert not report.unexpected_keys
    assert set(report.missing_keys) == {f'{pool}.{key}' for pool in pools for key in PolynomialPool2d(1).state_dict()}
    if places is not None:
        assert {re.sub(r'(\.replacement)?\.pool$', '', pool) for pool in pools} == set(places)

    for module in net.modules():  # timm starts residual branches at zero, which would hide what lies in them
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    input = torch.rand(2, 3, 96, 66, requires_grad=True)
    outputs = net(input)
    assert type(outputs) is type(original(input))
    assert [output.shape for output in outputs] == [output.shape for output in original(input)]
    torch.autograd.backward(outputs, [torch.randn_like(output) for output in outputs])
    assert not [key for key, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert input.grad.any()


def test_where_chooses_by_the_whole_name():
    pytest.importorskip('mmdet')
    net = repooled('mmdet.ResNet', depth=18, where='maxpool')
    assert isinstance(net.maxpool.pool, PolynomialPool2d)
    assert net.conv1.stride == (2, 2)
    assert sum(isinstance(module, PolynomialPool2d) for module in net.modules()) == 1
    rule = 'Repooled: where must match the whole name of a pooling or strided convolution of ResNet, but got '
    candidates = r"conv1', 'maxpool', 'layer2.0.conv1', 'layer2.0.downsample.0'"
    with pytest.raises(ValueError, match=rf"{rule}'max', which matches only a part of maxpool: write '\.\*' around it; there are .*{candidates}"):
        repooled('mmdet.ResNet', depth=18, where='max')
    with pytest.raises(ValueError, match=rf"{rule}'max_pool'; close to it: maxpool; there are"):
        repooled('mmdet.ResNet', depth=18, where='max_pool')


def test_where_may_be_a_list():
    """Of which every pattern must match something: a typing error in one would go unseen."""
    pytest.importorskip('mmdet')
    net = repooled('mmdet.ResNet', dict(type='MaximumPool2d'), depth=18, where=['maxpool', r'layer[34]\.0\.conv1'])
    assert {name for name, module in net.named_modules() if isinstance(module, MaximumPool2d)} == {
        'maxpool.pool',
        'layer3.0.conv1.replacement.pool',
        'layer4.0.conv1.replacement.pool',
    }
    with pytest.raises(ValueError, match=r"but got 'layer9\.\*'; there are"):
        repooled('mmdet.ResNet', depth=18, where=['maxpool', 'layer9.*'])
    for where in ([], 3, ['maxpool', None]):
        with pytest.raises(TypeError, match='where must be a regular expression or a list of them, but got'):
            repooled('mmdet.ResNet', depth=18, where=where)


def test_an_unknown_pool_lists_close_names():
    pytest.importorskip('mmdet')
    with pytest.raises(ValueError, match="pool must have a registered type, but got 'PolynomialPooling2d'; close to it: PolynomialPool2d"):
        repooled('mmdet.ResNet', dict(type='PolynomialPooling2d'), depth=18)


def test_a_strided_convolution_keeps_its_weights_at_stride_one_and_is_pooled_directly_after():
    pytest.importorskip('mmdet')
    net = repooled('mmdet.ResNet', dict(type='MaximumPool2d'), depth=18, where='conv1')
    input = torch.rand(1, 3, 33, 40)
    torch.testing.assert_close(net.conv1(input), F.max_pool2d(F.conv2d(input, net.conv1.weight, None, 1, 3), 2, 2, ceil_mode=True))


def test_alpha_zero_is_the_average_pooling_twin():
    pytest.importorskip('mmpretrain')
    net, twin = repooled('mmpretrain.VGG', depth=11), build_backbone('mmpretrain.VGG', depth=11)
    twin.load_state_dict(net.state_dict(), strict=False)
    for name, module in twin.features.named_children():
        if isinstance(module, nn.MaxPool2d):
            twin.features[int(name)] = nn.AvgPool2d(2)
    for module in net.modules():
        if isinstance(module, PolynomialPool2d):
            nn.init.zeros_(module.side_branch[2].weight)
            nn.init.constant_(module.side_branch[2].bias, -20.0)
    input = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net(input)[0], twin(input)[0])


def test_a_network_with_average_poolings_starts_as_it_was():
    """DenseNet's one max and three average poolings: its outputs are 2% off. With an order of 20 everywhere they were off by one to three norms."""
    pytest.importorskip('mmpretrain')
    arguments = dict(arch='121', out_indices=(0, 1, 2, 3))
    torch.manual_seed(0)
    original = build_backbone('mmpretrain.DenseNet', **arguments)
    images = F.interpolate(torch.randn(2, 3, 24, 24), size=(96, 96), mode='bicubic')
    with torch.no_grad():
        for _ in range(20):  # statistics
            original(images)
        original.eval()  # upstream's returns nothing
        expected = original(images)
        for pool, least, most in ((POOL, 0, 0.05), (dict(POOL, initial_alpha=20.0), 0.5, 10)):
            net = repooled('mmpretrain.DenseNet', pool, where=r'.*pool|stem\.3', **arguments)
            net.load_state_dict(original.state_dict(), strict=False)
            net.eval()
            distances = [((own - theirs).norm() / theirs.norm()).item() for own, theirs in zip(net(images), expected, strict=True)]
            print(pool, [f'{distance:.3f}' for distance in distances])
            assert all(least < distance < most for distance in distances)


@pytest.mark.parametrize('network', ['resnetblur50.bt_in1k', 'resnetaa50.a1h_in1k'])
def test_an_anti_aliased_pooling_is_one_place(network):
    """In the stem, max pooling of stride 1 and what thins it out were two: the first was pooled and the second stayed."""
    timm = pytest.importorskip('timm')
    name = network.split('.')[0]
    original, net = timm.create_model(name, features_only=True), repooled(f'timm.{name}')
    assert not [module for module in net.modules() if type(module).__name__ in ('BlurPool2d', 'MaxPool2d', 'AvgPool2d')]
    pools = {key: module for key, module in net.named_modules() if isinstance(module, PolynomialPool2d)}
    aa = [key for key in pools if '.aa.' in key]
    assert len(aa) == 3
    stem = [key for key in pools if key.startswith('maxpool')]
    assert len(stem) == (1 if 'blur' in name else len(stem))
    assert {pools[key].side_branch.initial_alpha for key in aa} == {0.01}
    if 'blur' in name:
        assert (pools[stem[0]].kernel_size, pools[stem[0]].stride, pools[stem[0]].side_branch.initial_alpha) == ((3, 3), (2, 2), 20)
    for size in ((64, 96), (65, 97)):
        input = torch.rand(1, 3, *size)
        assert [output.shape for output in net(input)] == [output.shape for output in original(input)]


@pytest.mark.parametrize(
    'pool', ['GatedPool2d', 'DetailPreservingPool2d', 'LpPool2d', 'SoftPool2d', 'MaximumPool2d', 'ConvPool2d', 'AveragePool2d', 'LIPPool2d']
)
def test_every_pooling_serves(pool):
    pytest.importorskip('mmpretrain')
    net = repooled('mmpretrain.VGG', dict(type=pool), depth=11)
    assert net(torch.rand(1, 3, 64, 64))[0].shape == (1, 512, 2, 2)


def test_initialisers_of_the_network_do_not_reach_the_pools():
    """mmpretrain's VGG draws every convolution anew; a side branch drawn so would say anything but 20."""
    pytest.importorskip('mmpretrain')
    torch.manual_seed(0)
    net = repooled('mmpretrain.VGG', depth=11)
    convolution = net.features[0].conv.weight.clone()
    net.init_weights()
    assert not torch.equal(net.features[0].conv.weight, convolution)
    for pool in (module for module in net.modules() if isinstance(module, PolynomialPool2d)):
        assert pool.side_branch[0].weight.abs().max() < 0.06  # Gaussian of 0.01
        assert pool.side_branch[2].bias.eq(0).all()


def test_the_log_has_one_line():
    pytest.importorskip('mmdet')
    records, handler, logger = [], logging.Handler(logging.INFO), MMLogger.get_current_instance()
    handler.emit = records.append
    logger.addHandler(handler)
    try:
        repooled('mmdet.ResNet', dict(type='LIPPool2d'), depth=18)
    finally:
        logger.removeHandler(handler)
    (record,) = records
    assert record.getMessage().startswith('Repooled: LIPPool2d at conv1, maxpool, layer2.0.conv1')


def test_a_trained_checkpoint_loads_through_init_cfg(tmp_path):
    pytest.importorskip('mmpretrain')
    trained = repooled('mmpretrain.VGG', depth=11)
    for parameter in trained.parameters():
        nn.init.constant_(parameter, 0.5)
    torch.save(trained.state_dict(), tmp_path / 'trained.pth')
    net = repooled('mmpretrain.VGG', depth=11, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'trained.pth')))
    net.init_weights()
    assert all(parameter.eq(0.5).all() for parameter in net.parameters())


def test_a_pool_in_a_frozen_stage_is_frozen():
    pytest.importorskip('mmdet')
    net = repooled('mmdet.ResNet', depth=18, frozen_stages=2, norm_eval=True)
    frozen = {key for key, parameter in net.named_parameters() if '.pool.' in key and not parameter.requires_grad}
    assert {key.split('.pool.')[0] for key in frozen} == {'conv1.replacement', 'layer2.0.conv1.replacement', 'layer2.0.downsample.0.replacement'}
    assert net.training
    assert not net.bn1.training


@pytest.mark.parametrize('backbone', ['mmpretrain.EfficientNet', 'timm.tf_efficientnet_b0'])
def test_padding_that_is_computed_from_the_image_keeps_the_sizes(backbone):
    pytest.importorskip(backbone.split('.')[0])
    arguments = dict(arch='b0') if backbone.startswith('mmpretrain') else {}
    original, net = build_backbone(backbone, **arguments), repooled(backbone, dict(type='MaximumPool2d'), **arguments)
    for module in (original, net):
        module.eval()
    with torch.no_grad():
        input = torch.rand(1, 3, 75, 98)
        assert [level.shape for level in net(input)] == [level.shape for level in original(input)]


def test_an_upstream_config_may_hold_it():
    """`pretrained` and the other keys of an inherited config stay where they are."""
    pytest.importorskip('mmseg')
    head = dict(type='FCNHead', in_channels=512, channels=8, num_convs=1, num_classes=3, loss_decode=dict(type='CrossEntropyLoss'))
    backbone = dict(type='Repooled', backbone='ResNetV1c', pool=POOL, depth=18, num_stages=4, out_indices=(0, 1, 2, 3))
    preprocessor = dict(type='SegDataPreProcessor')
    model = dict(type='EncoderDecoder', data_preprocessor=preprocessor, pretrained='some.pth', backbone=backbone, decode_head=head)
    net = MODELS.build(ConfigDict(model, train_cfg=dict(), test_cfg=dict(mode='whole'), _scope_='mmseg'))
    assert type(net.backbone).__name__ == 'ResNetV1c'
    assert net.backbone.init_cfg == dict(type='Pretrained', checkpoint='some.pth')


def test_copies_and_saves():
    pytest.importorskip('mmdet')
    net = repooled('mmdet.ResNet', depth=18)
    input = torch.rand(1, 3, 64, 64)
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    copied, loaded = copy.deepcopy(net), torch.load(buffer, weights_only=False)
    for module in (net, copied, loaded):
        module.eval()
    for other in (copied, loaded):
        torch.testing.assert_close(other(input), net(input))
        assert other.conv1.replacement is not net.conv1.replacement
    nn.init.constant_(copied.conv1.replacement.pool.side_branch[2].bias, -20.0)  # the hook must look at its own module
    assert not torch.equal(copied(input)[0], net(input)[0])


class Shared(nn.Module):
    """One pooling at two places, with different channels there if told so."""

    def __init__(self, channels=4, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)
        self.first = self.second = nn.MaxPool2d(2, **kwargs)

    def forward(self, input):
        return (self.second(self.conv(self.first(input))),)


SHARED = f'{Shared.__module__}.Shared'


@pytest.fixture(autouse=True)
def shared_is_registered():
    MODELS.register_module(name='Shared', module=Shared)
    yield
    MODELS.module_dict.pop('Shared')


def test_a_shared_pooling_stays_shared():
    net = repooled('Shared', channels=3)
    assert net.first is net.second
    assert isinstance(net.first.pool, PolynomialPool2d)


def test_bad_input():
    pytest.importorskip('mmpretrain')
    pool = dict(type='PolynomialPool2d', kernel_size=3)
    sizes = r'got \(63, 63\) from .* and \(64, 64\) from features.1 \(MaxPool2d'
    with pytest.raises(ValueError, match=rf'Repooled: pool must keep the output size of what it replaces, but {sizes}.*for an input of \(128, 128\)'):
        repooled('mmpretrain.VGG', pool, depth=11)
    with pytest.raises(ValueError, match="Repooled: pool must have a registered type, but got 'NoPool2d'"):
        repooled('mmpretrain.VGG', dict(type='NoPool2d'), depth=11)
    with pytest.raises(ValueError, match='Repooled: a pooling must always have the same channels, but got 3 and 4 for MaxPool2d'):
        repooled('Shared', channels=4)
    with pytest.raises(ValueError, match=r'Repooled: a replaced pooling must have no dilation .*, but got MaxPool2d.*dilation=2.* at first'):
        repooled('Shared', channels=3, dilation=2)


def test_a_size_that_differs_on_odd_inputs_only_is_an_error():
    pytest.importorskip('mmdet')
    with pytest.raises(ValueError, match=r'but got \(32, 32\) from .* and \(33, 33\) from maxpool .* for an input of \(65, 65\)'):
        repooled('mmdet.ResNet', dict(type='PolynomialPool2d', kernel_size=2, padding=0), depth=18, where='maxpool')


def test_a_new_style_config_builds_what_names_build(tmp_path):
    pytest.importorskip('mmseg')
    from mmengine.config import Config

    path = tmp_path / 'config.py'
    path.write_text("""
from mmengine.config import read_base

with read_base():
    from .base import *

from mmseg.models.backbones import ResNetV1c

from mmpool_ext import PolynomialPool2d, Repooled, Tapped

inner = dict(type=ResNetV1c, depth=18, in_channels=4)
repooled = dict(type=Repooled, backbone=inner, pool=dict(type=PolynomialPool2d), where='maxpool')
tapped = dict(type=Tapped, backbone=ResNetV1c, depth=18, taps=['layer1'])
""")
    (tmp_path / 'base.py').write_text("default_scope = 'mmseg'\n")
    cfg = Config.fromfile(path)
    net = MODELS.build(cfg.repooled)
    names = repooled('mmseg.ResNetV1c', dict(type='PolynomialPool2d'), where='maxpool', depth=18, in_channels=4)
    assert isinstance(net.maxpool.pool, PolynomialPool2d)
    assert net.state_dict().keys() == names.state_dict().keys()
    net.load_state_dict(names.state_dict())
    images = torch.rand(1, 4, 33, 40)
    net.eval()
    names.eval()
    assert all(torch.equal(*pair) for pair in zip(net(images), names(images), strict=True))
    assert [tuple(f.shape[1:]) for f in MODELS.build(cfg.tapped)(torch.rand(1, 3, 64, 64))] == [(64, 16, 16), (512, 2, 2)]
