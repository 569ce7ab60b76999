"""What all backbones that are chains of stages do alike: shapes, gradients, checkpoints, freezing, errors."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmpool_ext  # noqa: F401 registers the names

POOL = dict(type='PolynomialPool2d')
# package, own arguments, taken stages, their channels and strides, and the side branches' parts (pools)
BACKBONES = {
    'LIPDenseNet': ('torchvision', dict(), (0, 1, 2, 3), (256, 512, 1024, 1024), (4, 8, 16, 32), 4),
    'PPoolVGG': ('torchvision', dict(depth=16, fc_channels=32), (0, 1, 2, 3, 4, 5), (64, 128, 256, 512, 512, 32), (2, 4, 8, 16, 16, 16), 5),
    'PPoolResNet': ('torchvision', dict(depth=50), (0, 1, 2, 3), (256, 512, 1024, 2048), (4, 8, 16, 32), 4),
    'PPoolInceptionV2': ('mmengine', dict(), (0, 1, 2, 3, 4), (64, 192, 320, 608, 1024), (2, 4, 8, 16, 32), 17),
    'PPoolXception': ('timm', dict(), (0, 1, 2, 3, 4), (64, 128, 256, 728, 2048), (2, 4, 8, 16, 16), 8),
}


@pytest.fixture(params=BACKBONES)
def case(request):
    pytest.importorskip(BACKBONES[request.param][0])
    return request.param, *BACKBONES[request.param][1:]


def build(name, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(type=name, **kwargs))


@pytest.mark.parametrize('pool', [POOL, None], ids=['pool', 'original'])
def test_channels_strides_and_gradients(case, pool):
    name, arguments, indices, channels, strides, pools = case
    net = build(name, pool=pool, out_indices=indices, **arguments)
    assert sum(type(module).__name__ == 'PolynomialPool2d' for module in net.modules()) == (pools if pool else 0)
    outputs = net(torch.rand(2, 3, 64, 96))
    assert isinstance(outputs, tuple)
    assert [output.shape[1] for output in outputs] == list(channels)
    assert (net.out_channels, net.out_strides) == (channels, strides)
    assert [tuple(output.shape[2:]) for output in outputs] == [(64 // stride, 96 // stride) for stride in strides]
    torch.autograd.backward(outputs, [torch.randn_like(output) for output in outputs])
    assert not [key for key, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()]


def test_pools_start_as_they_prescribe_whatever_init_cfg_draws(case, tmp_path):
    name, arguments, *_ = case
    kaiming = dict(type='Kaiming', layer='Conv2d')
    net = build(name, pool=POOL, init_cfg=kaiming, **arguments)
    trained = {key: torch.full_like(value, 2) for key, value in net.state_dict().items() if 'side_branch' in key}
    net.init_weights()
    branches = [parameter for key, parameter in net.named_parameters() if key.endswith('side_branch.0.weight')]
    assert all(0.007 < branch.std() < 0.013 for branch in branches)
    torch.save(trained, tmp_path / 'branches.pth')
    net = build(name, pool=POOL, init_cfg=[dict(type='Pretrained', checkpoint=str(tmp_path / 'branches.pth')), kaiming], **arguments)
    net.init_weights()
    assert all(parameter.eq(2).all() for key, parameter in net.named_parameters() if 'side_branch' in key)


def test_logits_of_densenet_start_at_zero_whatever_init_cfg_draws():
    pytest.importorskip('torchvision')
    net = build('LIPDenseNet', init_cfg=dict(type='Kaiming', layer='Conv2d'))
    net.init_weights()
    tops = [module.conv for module in net.modules() if type(module).__name__ in ('ProjectionLogit', 'SimplifiedLogit')]
    assert len(tops) == 4
    assert not any(conv.weight.any() for conv in tops)


def test_pooled_and_original_networks_share_their_keys(case):
    name, arguments, *_ = case
    pooled, original = build(name, pool=POOL, **arguments), build(name, pool=None, **arguments)
    report = pooled.load_state_dict(original.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert report.missing_keys
    assert all('side_branch' in key for key in report.missing_keys)


def test_odd_sizes_and_a_batch_of_one(case):
    name, arguments, indices, _, _, _ = case
    outputs = build(name, pool=POOL, out_indices=indices, **arguments).eval()(torch.rand(1, 3, 53, 79))
    assert all(output.isfinite().all() for output in outputs)


def test_stages_behind_the_last_output_are_not_built(case):
    name, arguments, indices, *_ = case
    whole, short = build(name, pool=POOL, out_indices=indices, **arguments), build(name, pool=POOL, out_indices=(1,), **arguments)
    assert set(short.state_dict()) < set(whole.state_dict())
    short.load_state_dict({key: value for key, value in whole.state_dict().items() if key in short.state_dict()})
    input = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(short.eval()(input)[0], whole.eval()(input)[1])
    short.train()(input)[0].backward(torch.randn_like(short(input)[0]))
    assert all(parameter.grad is not None for parameter in short.parameters())


def test_frozen_stages_and_norms(case):
    name, arguments, indices, *_ = case
    net = build(name, pool=POOL, out_indices=indices, frozen_stages=2, **arguments, **({} if name == 'PPoolVGG' else dict(norm_eval=True)))
    for mode in (False, True):  # also after a round trip
        net.train(mode)
    frozen = {key for key, parameter in net.named_parameters() if not parameter.requires_grad}
    expected = {f'{key}.' for stage in net.stages[:2] for step in stage for key in net.modules_of(step)}
    assert frozen == {key for key, _ in net.named_parameters() if key.startswith(tuple(expected))}
    assert any('side_branch' in key for key in frozen)
    assert 0 < len(frozen) < len(list(net.parameters()))
    assert not any(module.training for module in net.modules() if isinstance(module, _BatchNorm))
    net.norm_eval = False
    net.train()
    assert any(module.training for module in net.modules() if isinstance(module, _BatchNorm)) == (name != 'PPoolVGG')


def test_frozen_stages_0_is_the_stem_of_a_resnet_alone(case):
    name, arguments, *_ = case
    net = build(name, pool=POOL, frozen_stages=0, **arguments)
    frozen = {key.split('.')[0] for key, parameter in net.named_parameters() if not parameter.requires_grad}
    assert frozen == ({'conv1', 'bn1', 'conv1_pool'} if name == 'PPoolResNet' else set())


def test_outputs_of_some_stages_have_their_channels_and_strides(case):
    name, arguments, _, channels, strides, _ = case
    net = build(name, pool=POOL, out_indices=(2, 0), **arguments)
    assert (net.out_channels, net.out_strides) == ((channels[0], channels[2]), (strides[0], strides[2]))
    assert [output.shape[1] for output in net(torch.rand(2, 3, 64, 64))] == [channels[0], channels[2]]


@pytest.mark.parametrize('output_stride', [8, 32])
@pytest.mark.parametrize(('name', 'package'), [('PPoolVGG', 'torchvision'), ('PPoolXception', 'timm')])
def test_strides_follow_the_output_stride(name, package, output_stride):
    pytest.importorskip(package)
    net = build(name, pool=POOL, output_stride=output_stride, out_indices=(0, 1, 2, 3, 4), **(dict(fc_channels=8) if name == 'PPoolVGG' else {}))
    assert net.out_strides == tuple(64 // output.shape[3] for output in net.eval()(torch.rand(1, 3, 64, 64)))


def test_checkpoint_through_pretrained(case, tmp_path):
    name, arguments, *_ = case
    original = build(name, pool=None, **arguments)
    for parameter in original.parameters():
        nn.init.constant_(parameter, 0.5)
    torch.save(original.state_dict(), tmp_path / 'x.pth')
    net = build(name, pool=POOL, pretrained=str(tmp_path / 'x.pth'), **arguments)
    net.init_weights()
    for key, parameter in net.named_parameters():
        assert parameter.eq(0.5).all() == ('side_branch' not in key)
        if key.endswith('side_branch.2.bias'):
            assert parameter.eq(0).all()
    torch.save({'somebody.else': torch.zeros(1)}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='the checkpoint must share at least one tensor'):
        build(name, pool=POOL, pretrained=str(tmp_path / 'x.pth'), **arguments).init_weights()


def test_copies(case):
    name, arguments, *_ = case
    net = build(name, pool=POOL, **arguments).eval()
    input = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(copy.deepcopy(net)(input), net(input))


def test_bad_arguments(case):
    name, arguments, indices, *_ = case
    with pytest.raises(ValueError, match=f"{name}: pool must have a registered type, but got 'PolynomialPol2d'; close to it: PolynomialPool2d"):
        build(name, pool=dict(type='PolynomialPol2d'), **arguments)
    build_again = lambda **kwargs: build(name, pool=POOL, **dict(arguments, **kwargs))  # noqa: E731
    with pytest.raises(ValueError, match=rf'{name}: out_indices must be among the stages 0 to {len(indices) - 1}, but got \(0, 6\)'):
        build_again(out_indices=(0, 6))
    with pytest.raises(ValueError, match=rf'{name}: out_indices must be among the stages 0 to {len(indices) - 1}, but got \(\)'):
        build_again(out_indices=())
    with pytest.raises(ValueError, match=f'{name}: frozen_stages must be at most the 1 stages in use, but got 2'):
        build_again(out_indices=(0,), frozen_stages=2)
    with pytest.raises(ValueError, match=f"{name}: pretrained and init_cfg must not both be given, but got 'a' and {{'type': 'b'}}"):
        build_again(pretrained='a', init_cfg=dict(type='b'))
