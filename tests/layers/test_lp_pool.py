"""LpPool2d, and where the supplement's printed gradients are wrong."""

import pytest
import reference
import torch
from torch.nn import functional as F

from mmpool_ext.layers import LpPool2d

WINDOW = torch.tensor([0.5, 1.5, 2.0, 3.0], dtype=torch.float64)


def norm(x, p):
    return (x**p).sum() ** (1 / p)


def test_by_hand():
    assert LpPool2d(1)(torch.tensor([[[[3.0, 0.0], [0.0, -4.0]]]])).item() == pytest.approx(5)


@pytest.mark.parametrize('window', [((2, 2), (2, 2), (0, 0), False), ((3, 3), (2, 2), (1, 1), False), ((3, 2), (2, 3), (1, 1), True)])
@pytest.mark.parametrize('mean', [True, False])
def test_against_float64_reference(window, mean):
    generator = torch.Generator().manual_seed(0)
    pool = LpPool2d(2, *window[:3], ceil_mode=window[3], norm_type=3.0, learnable=True, mean=mean).double()
    with torch.no_grad():
        pool.raw_norm[1] = -1.0
    input = torch.randn(2, 2, 6, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(pool(input), reference.lp_pool2d(input, pool.norm_type.tolist(), mean, *window))
    assert torch.autograd.gradcheck(pool, input.requires_grad_())
    raw = pool.raw_norm.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda raw: torch.func.functional_call(pool, {'raw_norm': raw}, (input.detach(),)), raw)


def test_a_learnt_order_starts_at_the_given_one():
    pool = LpPool2d(2, norm_type=3.0, learnable=True)
    torch.testing.assert_close(pool.norm_type, torch.full((2,), 3.0))
    assert pool.raw_norm.eq(0).all()  # so weight decay leaves it there: with the start in the parameter, p ended at 1.69


@pytest.mark.parametrize('p', [1.5, 3.0])
def test_the_supplement_prints_wrong_gradients(p):
    """P-pooling's supplement, Eq. 2: exponent inverted, and the last term lacks a logarithm, a sum and 1/p; finite differences bear ours out."""
    x, step = WINDOW, 1e-6
    total, y = (x**p).sum(), norm(x, p)
    by_difference = torch.stack([(norm(x + step * e, p) - norm(x - step * e, p)) / (2 * step) for e in torch.eye(4, dtype=x.dtype)])
    by_difference_p = (norm(x, p + step) - norm(x, p - step)) / (2 * step)

    right = (x / y) ** (p - 1)
    right_p = y * ((x**p * x.log()).sum() / (p * total) - total.log() / p**2)
    torch.testing.assert_close(right, by_difference, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(right_p, by_difference_p, atol=1e-7, rtol=1e-6)

    pool = LpPool2d(1, norm_type=p, learnable=True).double()
    input = x.view(1, 1, 2, 2).clone().requires_grad_()
    grad_input, grad_raw = torch.autograd.grad(pool(input), [input, pool.raw_norm], torch.ones(1, 1, 1, 1, dtype=x.dtype))
    torch.testing.assert_close(grad_input.flatten(), right)
    slope = 1 - (1 - pool.norm_type).exp()  # of softplus
    torch.testing.assert_close(grad_raw / slope, right_p[None], atol=1e-6, rtol=1e-6)

    printed = x ** (p - 1) * total ** (p / (1 - p))
    printed_p = (-total.log() / p**2 + x ** (p - 1) / total) * total ** (1 / p)
    assert not torch.isclose(printed, by_difference, rtol=0.1).any()
    assert not torch.isclose(printed_p, by_difference_p, rtol=0.1).any()


def test_order_one_is_the_sum_and_its_gradient_one():
    """P-pooling's supplement, Sec. 2 finds a 'numerical issue' at p = 1; there is none, though the gradient is not average pooling's either."""
    input = WINDOW.view(1, 1, 2, 2).clone().requires_grad_()
    output = LpPool2d(1, norm_type=1.0).double()(input)
    torch.testing.assert_close(output.flatten(), WINDOW.sum()[None])
    output.backward(torch.ones_like(output))
    torch.testing.assert_close(input.grad, torch.ones_like(input))
    torch.testing.assert_close(LpPool2d(1, norm_type=1.0, mean=True).double()(input), F.avg_pool2d(input, 2))


def test_large_orders_are_max_pooling_and_do_not_overflow():
    """P-pooling's supplement, Sec. 2 has the gradients explode as p grows; they become the maximum's."""
    input = 1e3 * torch.rand(1, 2, 6, 6).requires_grad_()
    output = LpPool2d(2, norm_type=1000.0)(input)
    torch.testing.assert_close(output, F.max_pool2d(input, 2), rtol=2e-3, atol=0)
    assert (output >= F.max_pool2d(input, 2) * (1 - 1e-6)).all()


@pytest.mark.parametrize('p', [0.5, 1.0, 2.0, 7.0])
def test_all_zero_windows_give_zero_and_finite_gradients(p):
    input = torch.zeros(1, 1, 2, 2, requires_grad=True)
    output = LpPool2d(1, norm_type=p)(input)
    output.backward(torch.ones_like(output))
    assert output.item() == 0
    assert input.grad.isfinite().all()


def test_bad_orders():
    with pytest.raises(ValueError, match='LpPool2d: norm_type must be above 0 with learnable=False, but got 0'):
        LpPool2d(1, norm_type=0)
    with pytest.raises(ValueError, match=r'LpPool2d: norm_type must be above 1 with learnable=True, but got 1.0'):
        LpPool2d(1, norm_type=1.0, learnable=True)
