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
@pytest.mark.parametrize('lite', [True, False])
def test_against_float64_reference(window, symmetric, lite):
    generator = torch.Generator().manual_seed(0)
    pool = DetailPreservingPool2d(2, *window, symmetric=symmetric, lite=lite).double()
    if not lite:
        torch.nn.init.normal_(pool.smooth, generator=generator)
    input = torch.randn(2, 2, 6, 5, generator=generator, dtype=torch.float64)
    smooth = None if lite else pool.smooth.tolist()
    expected = reference.detail_preserving_pool2d(input, pool.log_alpha.exp().tolist(), pool.log_lambda.exp().tolist(), smooth, symmetric, *window)
    torch.testing.assert_close(pool(input), expected)
    assert torch.autograd.gradcheck(pool, input.requires_grad_())


def test_symmetric_lite_is_average_pooling_on_two_pixels():
    """000, Fig. 3: 'unnecessary to show as it is always equal to average pooling on 2D data'."""
    input = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(DetailPreservingPool2d(3, (1, 2), (1, 2)).double()(input), F.avg_pool2d(input, (1, 2)))


def test_full_starts_as_lite():
    torch.manual_seed(0)
    lite = DetailPreservingPool2d(2, 3, 2, 1)
    full = DetailPreservingPool2d(2, 3, 2, 1, lite=False)
    full.load_state_dict(lite.state_dict(), strict=False)
    input = torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(full(input), lite(input))


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
