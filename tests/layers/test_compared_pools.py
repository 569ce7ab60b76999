"""What every pooling layer of the P-pooling study has in common."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from torch.nn import functional as F

import mmpool_ext  # noqa: F401 registers the layers

POOLS = {
    'PolynomialPool2d': lambda k: k + 3,  # parameters a channel: the window, PReLU, 1x1 and its bias
    'MaximumPool2d': lambda k: 0,
    'SoftPool2d': lambda k: 0,
    'DetailPreservingPool2d': lambda k: 2,
    'LpPool2d': lambda k: 0,
}


def build(name, **kwargs):
    return MODELS.build(dict(type=name, **kwargs))


ALL = [*POOLS, 'GatedPool2d', 'ConvPool2d']


@pytest.mark.parametrize('name', ALL)
@settings(max_examples=25)
@given(data=st.data())
def test_sizes_are_those_of_torch(name, data):
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    ceil_mode = data.draw(st.booleans())
    input = torch.rand(2, 2, data.draw(st.integers(3, 8)), data.draw(st.integers(3, 8)))
    pool = build(name, in_channels=2, kernel_size=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode)
    assert pool(input).shape == F.max_pool2d(input, kernel, stride, padding, ceil_mode=ceil_mode).shape


@pytest.mark.parametrize('name', ALL)
def test_gradients_reach_the_input_and_every_parameter(name):
    generator = torch.Generator().manual_seed(0)
    pool = build(name, in_channels=3, kernel_size=3, stride=2, padding=1)
    input = torch.rand(2, 3, 7, 6, generator=generator, requires_grad=True)
    output = pool(input)
    output.backward(torch.randn(output.shape, generator=generator))
    assert input.grad.abs().amax((2, 3)).min() > 0
    for parameter in pool.parameters():
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize('name', ALL)
def test_parameters(name):
    count = sum(p.numel() for p in build(name, in_channels=5, kernel_size=2, stride=2, padding=0).parameters())
    if name == 'GatedPool2d':
        assert count == 4  # one mask a layer, whatever the channels
    elif name == 'ConvPool2d':
        assert count == 5 * 5 * 4 + 5
    else:
        assert count == 5 * POOLS[name](4)


@pytest.mark.parametrize('name', ['PolynomialPool2d', 'DetailPreservingPool2d', 'GatedPool2d', 'ConvPool2d'])
def test_init_weights_covers_every_parameter(name):
    pool = build(name, in_channels=3)
    states = []
    for fill in (7.0, -7.0):
        for parameter in pool.parameters():
            torch.nn.init.constant_(parameter, fill)
        torch.manual_seed(0)
        pool.init_weights()
        states.append(copy.deepcopy(pool.state_dict()))
    torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.parametrize('name', ALL)
def test_bad_windows_are_errors(name):
    with pytest.raises(ValueError, match=f'{name}: in_channels must be at least 1, but got 0'):
        build(name, in_channels=0)
    with pytest.raises(ValueError, match=f'{name}: kernel_size and stride must be at least 1, but got 2 and 0'):
        build(name, in_channels=1, stride=0)
    with pytest.raises(ValueError, match=f'{name}: padding must be between 0 and half of kernel_size, but got 2 and 3'):
        build(name, in_channels=1, kernel_size=3, padding=2)
    shown = str(build(name, in_channels=1, kernel_size=3, padding=1, ceil_mode=True))
    assert 'kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), ceil_mode=True' in shown


@pytest.mark.parametrize('name', ALL)
def test_half_precision_under_autocast(name):
    pool = build(name, in_channels=2, kernel_size=2, stride=2)
    input = torch.rand(1, 2, 4, 4).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = pool(input)
    torch.testing.assert_close(output.float(), pool(input.float()), atol=0.02, rtol=0.02)
