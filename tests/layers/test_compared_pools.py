"""What every pooling layer of the P-pooling study has in common."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from releases import HALF
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
    with pytest.raises(ValueError, match=f'{name}: stride must be an int >= 1 or a pair of them, but got 0'):
        build(name, in_channels=1, stride=0)
    with pytest.raises(ValueError, match=f'{name}: kernel_size must be an int >= 1 or a pair of them, but got \\(2, 2, 2\\)'):
        build(name, in_channels=1, kernel_size=(2, 2, 2))
    with pytest.raises(ValueError, match=f'{name}: padding must be an int >= 0 or a pair of them, but got -1'):
        build(name, in_channels=1, padding=-1)
    with pytest.raises(ValueError, match=f'{name}: padding must be at most half of kernel_size, but got 2 and 3'):
        build(name, in_channels=1, kernel_size=3, padding=2)
    shown = str(build(name, in_channels=1, kernel_size=3, padding=1, ceil_mode=True))
    assert 'kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), ceil_mode=True' in shown


@pytest.mark.parametrize('name', [*ALL, 'LIPPool2d'])
def test_windows_may_be_lists(name):
    """As in configs that were read from YAML or JSON."""
    torch.manual_seed(0)
    listed = build(name, in_channels=2, kernel_size=[3, 2], stride=2, padding=[1, 0])
    torch.manual_seed(0)
    paired = build(name, in_channels=2, kernel_size=(3, 2), stride=(2, 2), padding=(1, 0))
    input = torch.rand(1, 2, 8, 8)
    assert torch.equal(listed(input), paired(input))


@pytest.mark.parametrize('name', ['PolynomialPool2d', 'LpPool2d', 'LIPPool2d'])
def test_decay_alone_keeps_the_start(name):
    """A constant that means something is no parameter: without a gradient, nothing may drag an order or an importance to another pooling."""
    torch.manual_seed(0)
    pool = build(name, in_channels=3, kernel_size=2, stride=2, padding=0, **(dict(norm_type=3.0, learnable=True) if name == 'LpPool2d' else {}))
    input = torch.rand(1, 3, 8, 8)
    start = pool(input).detach()
    optimizer = torch.optim.SGD(pool.parameters(), lr=0.1, weight_decay=0.5, momentum=0.9)
    for parameter in pool.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(100):
        optimizer.step()
    assert max(parameter.abs().max().item() for parameter in pool.parameters()) < 0.01
    torch.testing.assert_close(pool(input), start, rtol=5e-3, atol=0)


@pytest.mark.parametrize('autocast', [False, True], ids=['cast', 'autocast'])
@pytest.mark.parametrize('dtype', [HALF, torch.bfloat16])
@pytest.mark.parametrize('name', [*ALL, 'AveragePool2d', 'LIPPool2d', 'DetailPreservingPool2d, full', 'LpPool2d, learnt'])
def test_half_precision(name, dtype, autocast):
    """The dtype comes out that goes in, from activations of 1e-4 to 1e4, and what a float would give."""
    name, _, form = name.partition(', ')
    torch.manual_seed(0)
    pool = build(name, in_channels=2, kernel_size=2, stride=2, padding=0, **{'full': dict(lite=False), 'learnt': dict(learnable=True)}.get(form, {}))
    for size in (1e-4, 1.0, 700.0, 1e4):
        input = (size * torch.rand(2, 2, 6, 6)).to(dtype)
        expected = pool.float()(input.float())
        leaf = input.clone().requires_grad_()
        with torch.autocast('cpu', dtype=dtype, enabled=autocast):
            output = pool.to(torch.float32 if autocast else dtype)(leaf)
        output.backward(torch.full_like(output, min(1, 1 / size)))  # an importance grows with what it weighs, and so does its gradient
        assert output.dtype == dtype
        assert leaf.grad.isfinite().all()
        torch.testing.assert_close(output.float(), expected, rtol=0.02, atol=1e-3 * size)
