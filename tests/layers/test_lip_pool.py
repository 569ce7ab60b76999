import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, Sequential
from mmengine.registry import MODELS
from torch import nn
from torch.testing import assert_close

import mmpool_ext.layers as layers
from mmpool_ext.ops import lip_pool2d

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


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
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


@pytest.mark.parametrize('dilation', [1, 2])
def test_average_pool_counts_no_padding(dilation):
    input = torch.randn(2, 3, 9, 8)
    pool = layers.AveragePool2d(3, 3, 1, dilation, dilation=dilation)
    ones = torch.ones(3, 1, 3, 3)
    total, count = (F.conv2d(x, ones, padding=dilation, dilation=dilation, groups=3) for x in (input, torch.ones_like(input)))
    assert_close(pool(input), total / count)
