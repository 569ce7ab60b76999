"""DetailPreservingPool2d in its four forms."""

import pytest
import reference
import torch
from torch.nn import functional as F

from mmpool_ext.layers import DetailPreservingPool2d


def test_by_hand():
    pool = DetailPreservingPool2d(1, symmetric=False)
    torch.nn.init.zeros_(pool.log_alpha)
    torch.nn.init.zeros_(pool.log_lambda)
    # the mean is 2.5; alpha = lambda = 1, so the weights are 1 plus what exceeds the mean: 1, 1, 1.5, 2.5 (and the small constant)
    expected = (1 + 2 + 1.5 * 3 + 2.5 * 4) / 6
    assert pool(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).item() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize('window', [((2, 2), (2, 2), (0, 0), False), ((3, 3), (2, 2), (1, 1), False), ((3, 2), (2, 3), (1, 1), True)])
@pytest.mark.parametrize('symmetric', [True, False])
def test_against_float64_reference(window, symmetric):
    generator = torch.Generator().manual_seed(0)
    pool = DetailPreservingPool2d(2, *window[:3], ceil_mode=window[3], symmetric=symmetric).double()
    input = torch.randn(2, 2, 6, 5, generator=generator, dtype=torch.float64)
    expected = reference.detail_preserving_pool2d(input, pool.log_alpha.exp().tolist(), pool.log_lambda.exp().tolist(), symmetric, *window)
    torch.testing.assert_close(pool(input), expected)
    assert torch.autograd.gradcheck(pool, input.requires_grad_())


def test_symmetric_lite_is_average_pooling_on_two_pixels():
    """P-pooling paper, Fig. 3: 'unnecessary to show as it is always equal to average pooling on 2D data'."""
    input = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(DetailPreservingPool2d(3, (1, 2), (1, 2)).double()(input), F.avg_pool2d(input, (1, 2)))


def authors_full(input, pool):
    """The authors' `DPP_sym_full.lua` and `DPP_asym_full.lua`: both sides brought to the size of the image."""
    weight, bias = pool.smooth.weight, pool.smooth.bias
    planes = [F.conv2d(input[:, i : i + 1], weight[i : i + 1], bias[i : i + 1], stride=2, padding=1) for i in range(input.shape[1])]
    difference = input - F.interpolate(torch.cat(planes, 1), scale_factor=2)
    difference = difference if pool.symmetric else difference.clamp(min=0)
    log_alpha, log_lambda = (parameter[:, None, None] for parameter in (pool.log_alpha, pool.log_lambda))
    reward = log_alpha.exp() + (difference**2 + 1e-3) ** (log_lambda.exp() / 2)
    return F.avg_pool2d(input * reward, 2) / F.avg_pool2d(reward, 2)


@pytest.mark.parametrize('symmetric', [True, False])
def test_full_is_the_authors_convolution_of_3x3_with_bias(symmetric):
    """Without their division of x by its own mean, which they call a matter of numerics."""
    torch.manual_seed(0)
    pool = DetailPreservingPool2d(3, symmetric=symmetric, lite=False).double()
    assert pool.smooth.weight.shape == (3, 1, 3, 3)
    assert pool.smooth.bias.abs().max() > 0
    input = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(pool(input), authors_full(input, pool))
    odd = torch.randn(2, 3, 9, 7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(pool(odd)[:, :, :-1, :-1], authors_full(odd[:, :, :8, :6], pool)[:, :, :-1, :-1])
    assert torch.autograd.gradcheck(pool, odd)


@pytest.mark.parametrize('window', [(2, 2, 0, True), (3, 2, 1, False), ((3, 2), (2, 3), (1, 1), True), (5, 1, 2, False)])
def test_full_keeps_the_size_of_any_window(window):
    input = torch.randn(1, 2, 7, 6)
    full, lite = (DetailPreservingPool2d(2, *window[:3], ceil_mode=window[3], lite=lite)(input) for lite in (False, True))
    assert full.shape == lite.shape


def test_parameters_start_within_one_over_root_c():
    pool = DetailPreservingPool2d(400)
    for parameter in pool.parameters():
        assert 0.04 < parameter.abs().max() <= 0.05


def test_constant_windows_stay_finite():
    input = torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    output = DetailPreservingPool2d(1)(input)
    output.backward(torch.ones_like(output))
    torch.testing.assert_close(output.detach(), torch.full((1, 1, 1, 1), 3.0))
    assert input.grad.isfinite().all()
