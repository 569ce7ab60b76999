import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, Sequential
from mmengine.registry import MODELS, DefaultScope
from releases import HALF
from torch import nn
from torch.testing import assert_close

import mmpool_ext.layers as layers
from mmpool_ext.layers import lip_pool
from mmpool_ext.ops import _extension, gated_lip_pool2d, lip_pool2d

LOGITS = {
    'projection': dict(type='ProjectionLogit'),
    'simplified': dict(type='SimplifiedLogit'),
    'bottleneck': dict(type='BottleneckLogit', mid_channels=4),
}
parametrize_logit = pytest.mark.parametrize('logit', LOGITS.values(), ids=LOGITS)


def last_convolution(pool):
    return [module for module in pool.modules() if isinstance(module, nn.Conv2d)][-1]


def awake(pool):
    """Give the zero-initialised convolution weights, as training would."""
    nn.init.normal_(last_convolution(pool).weight)
    return pool


@parametrize_logit
@pytest.mark.parametrize('size', [(8, 8), (7, 10), (2, 3)])
def test_new_lip_is_average_pooling(logit, size):
    input = torch.randn(2, 5, *size)
    pool = layers.LIPPool2d(5, logit=logit)
    expected = F.avg_pool2d(input, 3, 2, 1, count_include_pad=False)
    assert_close(pool(input), expected)
    pool.init_weights()
    assert_close(pool(input), expected)


@parametrize_logit
def test_init_weights_of_a_parent_leaves_the_last_convolution_zero(logit):
    network = Sequential(nn.Conv2d(3, 5, 3), layers.LIPPool2d(5, logit=logit))
    parent = BaseModule(init_cfg=dict(type='Kaiming', layer='Conv2d'))
    parent.network = network
    nn.init.ones_(last_convolution(network).weight)
    parent.init_weights()
    assert not last_convolution(network).weight.any()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.weight.any() for module in convolutions[:-1])


def test_projection_by_hand():
    """Gate 12 * sigmoid over the affine instance norm of one channel; 1x1 weight 1 and input 0, 0, 0, 2 on a 2x2 map."""
    pool = layers.LIPPool2d(1, 2, 2, 0, logit=dict(type='ProjectionLogit'))
    nn.init.ones_(pool.logit.conv.weight)
    input = torch.tensor([[[[0.0, 0.0], [0.0, 2.0]]]])
    low, high = (torch.tensor(v) / (0.75 + 1e-5) ** 0.5 for v in (-0.5, 1.5))  # mean 0.5, variance 0.75
    weights = [torch.exp(12 * torch.sigmoid(v)) for v in (low, high)]
    assert_close(pool(input).item(), (2 * weights[1] / (3 * weights[0] + weights[1])).item())


@parametrize_logit
def test_every_parameter_gets_a_gradient(logit):
    pool = awake(layers.LIPPool2d(5, logit=logit))
    output = pool(torch.randn(2, 5, 8, 8))
    output.backward(torch.randn_like(output))
    for name, parameter in pool.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_logit_of_other_features():
    pool = awake(layers.LIPPool2d(5, logit=dict(type='ProjectionLogit', in_channels=3)))
    input, features = torch.randn(2, 5, 8, 8), torch.randn(2, 3, 8, 8)
    assert_close(pool(input, features), lip_pool2d(input, pool.logit(features)))


native = pytest.mark.skipif(('gated_lip_pool2d', 'cpu') not in _extension.KERNELS, reason=f'compiled ops are not built: {_extension.BUILD}')


def gradients(pool, input, grad_output, dtype=None):
    """Output and gradients of the input and of every parameter."""
    input = input.detach().requires_grad_()
    with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
        output = pool(input)
    return [output.detach(), *torch.autograd.grad(output, [input, *pool.parameters()], grad_output)]


@native
@parametrize_logit
@pytest.mark.parametrize('norm_cfg', [dict(type='IN', affine=True), None], ids=['norm', 'no norm'])
@pytest.mark.parametrize('dtype', [None, torch.bfloat16], ids=['float32', 'autocast'])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=['contiguous', 'channels_last'])
def test_fused_is_the_same_as_its_parts(logit, norm_cfg, dtype, layout, monkeypatch):
    """The parts run where a hook expects the logit's call, and where ``backend`` asks for plain PyTorch."""
    torch.manual_seed(0)
    fused = []
    monkeypatch.setattr(lip_pool, 'gated_lip_pool2d', lambda *args, **kwargs: fused.append(1) or gated_lip_pool2d(*args, **kwargs))
    pool = awake(layers.LIPPool2d(16, logit=dict(logit, norm_cfg=norm_cfg)))
    input = torch.randn(2, 16, 13, 10).to(dtype or torch.float32).contiguous(memory_format=layout)
    grad_output = torch.randn(2, 16, 7, 5, dtype=input.dtype)
    ours = gradients(pool, input, grad_output, dtype)
    assert len(fused) == 1
    layers_with_backend = [module for module in pool.modules() if hasattr(module, 'backend')]
    for module in layers_with_backend:
        module.backend = 'torch'
    plain = gradients(pool, input, grad_output, dtype)
    for module in layers_with_backend:
        module.backend = 'auto'
        if isinstance(module, layers.BottleneckTrunk):
            module.norm1.register_forward_hook(lambda *_: None)
            module.norm2.register_forward_hook(lambda *_: None)
    seen = []
    pool.logit.register_forward_hook(lambda module, args, output: seen.append(output))
    watched = gradients(pool, input, grad_output, dtype)
    assert len(fused) == len(seen) == 1
    assert seen[0].dtype == torch.float32
    for got, *others in zip(ours, plain, watched, strict=True):
        for other in others:
            # under autocast gradients of a convolution's weight are sums of rounded products
            size = other.float().abs().max().clamp(min=1).item()
            assert_close(got.float(), other.float(), rtol=0, atol=(3e-2 if dtype else 1e-4) * size)


@native
@pytest.mark.parametrize(
    'change',
    [
        lambda logit: setattr(logit, 'norm', nn.BatchNorm2d(5)),
        lambda logit: setattr(logit, 'norm', nn.InstanceNorm2d(5)),
        lambda logit: setattr(logit, 'norm', nn.InstanceNorm2d(5, affine=True, track_running_stats=True)),
        lambda logit: setattr(logit, 'gate_scale', 40.0),
        lambda logit: setattr(logit, 'gate_scale', None),
        lambda logit: logit.norm.register_forward_hook(lambda *_: None),
        lambda logit: logit.register_forward_pre_hook(lambda *_: None),
    ],
    ids=['batch norm', 'no parameters', 'running statistics', 'large gate', 'no gate', 'hook on the norm', 'pre-hook'],
)
def test_other_logits_are_called(change, monkeypatch):
    monkeypatch.setattr(lip_pool, 'gated_lip_pool2d', None)
    pool = awake(layers.LIPPool2d(5))
    change(pool.logit)
    input = torch.randn(2, 5, 8, 8)
    assert_close(pool(input), lip_pool2d(input, pool.logit(input)))


@native
def test_a_subclass_of_the_logit_is_called(monkeypatch):
    class Negative(layers.ProjectionLogit):
        def forward(self, features):
            return -super().forward(features)

    monkeypatch.setattr(lip_pool, 'gated_lip_pool2d', None)
    pool = awake(layers.LIPPool2d(5, logit=dict(type=Negative)))
    input = torch.randn(2, 5, 8, 8)
    assert_close(pool(input), lip_pool2d(input, pool.logit(input)))


@native
@parametrize_logit
def test_maps_that_are_kept_for_backward(logit):
    """Beside the features and what the convolutions and trunk norms give, nothing of their size, and all in their dtype."""
    pool, kept = awake(layers.LIPPool2d(64, logit=dict(logit, mid_channels=32) if 'mid_channels' in logit else logit)), {}
    input = torch.randn(2, 64, 32, 32, requires_grad=True)

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pool(input)
    parameters = {parameter.data_ptr() for parameter in pool.parameters()}
    maps = sum(count for pointer, count in kept.items() if pointer not in parameters and count > 4 * 2 * 64)
    trunk = 4 * 32 * 2 * 32 * 32 if 'mid_channels' in logit else 0  # what two convolutions and two norms give
    assert maps == 2 * input.numel() + trunk


def test_keys_of_a_checkpoint():
    pool = layers.LIPPool2d(5, logit=dict(type='BottleneckLogit', mid_channels=4))
    trunk = [f'logit.trunk.{name}' for name in ('conv1.weight', 'norm1.weight', 'norm1.bias', 'conv2.weight', 'norm2.weight', 'norm2.bias')]
    assert list(pool.state_dict()) == [*trunk, 'logit.top.conv.weight', 'logit.top.norm.weight', 'logit.top.norm.bias']


@pytest.mark.parametrize('backend', ['cuda', None])
def test_backend_is_checked(backend):
    with pytest.raises(ValueError, match="LIPPool2d: backend must be 'auto', 'native' or 'torch', but got"):
        layers.LIPPool2d(5, backend=backend)


def test_switches_of_table_2():
    features = torch.randn(2, 5, 8, 8)
    conv = torch.randn(5, 5, 1, 1)
    norm = F.instance_norm(F.conv2d(features, conv))
    expected = {
        (True, 12.0): 12 * norm.sigmoid(),
        (True, None): norm,
        (False, 12.0): 12 * F.conv2d(features, conv).sigmoid(),
        (False, None): F.conv2d(features, conv),
    }
    for (with_norm, gate_scale), value in expected.items():
        logit = layers.ProjectionLogit(5, norm_cfg=dict(type='IN', affine=True) if with_norm else None, gate_scale=gate_scale)
        logit.conv.weight.data.copy_(conv)
        assert_close(logit(features), value)


@pytest.mark.parametrize('dtype', [HALF, torch.bfloat16])
@parametrize_logit
def test_autocast_keeps_the_gate_in_float32(logit, dtype):
    pool = awake(layers.LIPPool2d(5, logit=logit))
    input = 100 * torch.randn(2, 5, 8, 8)
    expected = pool(input)
    with torch.autocast('cpu', dtype):
        assert pool.logit(input).dtype == torch.float32
        output = pool(input.to(dtype))
    assert output.dtype == dtype
    assert output.isfinite().all()
    assert (output - expected).abs().max() < 0.1 * expected.abs().max()


def test_half_module():
    pool = awake(layers.LIPPool2d(5)).bfloat16()
    output = pool(torch.randn(2, 5, 8, 8).bfloat16())
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()


def test_builds_from_a_config_by_every_name():
    for name in ('LIPPool2d', 'mmpool_ext.LIPPool2d', layers.LIPPool2d):
        assert type(MODELS.build(dict(type=name, in_channels=3, kernel_size=2, stride=2, padding=0))) is layers.LIPPool2d


def test_window_smaller_than_stride():
    with pytest.raises(ValueError, match=r'LIPPool2d: kernel_size must be at least stride, but got kernel_size 2 and stride \(1, 3\)'):
        layers.LIPPool2d(3, 2, (1, 3), 0)


def test_unknown_logit_module():
    with pytest.raises(ValueError, match=r"LIPPool2d: logit must have a registered type \(ProjectionLogit, .*but got 'WideLogit'"):
        layers.LIPPool2d(3, logit=dict(type='WideLogit'))


def test_logit_module_of_a_codebase():
    """Registered in mmseg's registry, as code of a project of mmseg's is."""
    registry = pytest.importorskip('mmseg.registry').MODELS

    @registry.register_module(name='CodebaseLogit')
    class CodebaseLogit(nn.Conv2d):
        def __init__(self, in_channels, out_channels):
            super().__init__(in_channels, out_channels, 1)

    try:
        with DefaultScope.overwrite_default_scope('mmseg'):
            assert type(layers.LIPPool2d(3, logit=dict(type='CodebaseLogit')).logit) is CodebaseLogit
    finally:
        del registry.module_dict['CodebaseLogit']


def test_init_cfg_of_a_logit_is_applied():
    logit = layers.ProjectionLogit(3, init_cfg=dict(type='Constant', layer='Conv2d', val=2))
    logit.init_weights()
    assert logit.conv.weight.eq(2).all()


@pytest.mark.parametrize('dilation', [1, 2])
def test_average_pool_counts_no_padding(dilation):
    input = torch.randn(2, 3, 9, 8)
    pool = layers.AveragePool2d(3, 3, 1, dilation, dilation=dilation)
    ones = torch.ones(3, 1, 3, 3)
    total, count = (F.conv2d(x, ones, padding=dilation, dilation=dilation, groups=3) for x in (input, torch.ones_like(input)))
    assert_close(pool(input), total / count)
