import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from mmpool_ext.ops import lan_pool2d, lip_pool2d, polynomial_pool2d


@pytest.fixture
def input():
    return torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


def test_gradients_to_second_order(input):
    input = input[:1, :1, :5, :5].requires_grad_()
    importance = torch.rand_like(input).requires_grad_()
    assert torch.autograd.gradcheck(lan_pool2d, (input, importance))
    assert torch.autograd.gradgradcheck(lan_pool2d, (input, importance))


def test_section_3_1_every_pooling_is_local_aggregation_and_normalization(input):
    """LIP paper, Section 3.1: "pooling in this view can be seen two steps: aggregate features with the importance F(I) and normalize them"."""
    window = {'kernel_size': 2, 'stride': 2, 'padding': 0}

    # "Average and max pooling. Given F(I) = exp(beta I), beta = 0 gives average pooling and beta -> infinity gives max pooling."
    assert_close(lan_pool2d(input, torch.exp(0 * input), **window), F.avg_pool2d(input, 2))
    assert_close(lan_pool2d(input, torch.exp(600 * input), **window), F.max_pool2d(input, 2), atol=1e-3, rtol=0)

    # "Strided convolution." Eq. 3: F is 1 at the sampled location of each window and 0 elsewhere; the convolution is then dense, stride 1.
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    dense = F.conv2d(input, weight, padding=1)
    sampled = torch.zeros_like(dense)
    sampled[..., ::2, ::2] = 1
    assert_close(lan_pool2d(dense, sampled, **window), F.conv2d(input, weight, stride=2, padding=1))

    # "Detail-preserving pooling" takes "the deviations of features from the activation statistics" as F: alpha + rho(I - mean) ** lambda.
    mean = F.avg_pool2d(input, 2)
    detail = 0.5 + (input - mean.repeat_interleave(2, 2).repeat_interleave(2, 3)).clamp(min=0) ** 2
    windows = [input[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    weights = [0.5 + (cell - mean).clamp(min=0) ** 2 for cell in windows]
    preserved = sum(f * cell for f, cell in zip(weights, windows, strict=True)) / sum(weights)
    assert_close(lan_pool2d(input, detail, **window), preserved)

    # "Local importance-based pooling": F = exp(G(I)), Eq. 4 and 5.
    logit = torch.randn_like(input)
    assert_close(lan_pool2d(input, torch.exp(logit), **window), lip_pool2d(input, logit, **window))

    # P-pooling (Wei et al., Eq. 1): F = I ** alpha, alpha being one number in a window.
    alpha = torch.rand_like(mean) * 20
    importance = input ** alpha.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert_close(lan_pool2d(input, importance, **window), polynomial_pool2d(input, alpha))


def test_zero_importance_takes_no_weight_but_gets_gradient():
    input = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    importance = torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]], requires_grad=True)
    output = lan_pool2d(input, importance, kernel_size=2, padding=0)
    assert_close(output.item(), 5.0)
    (grad,) = torch.autograd.grad(output, importance)
    assert_close(grad, (input - 5) / 4)


def test_window_without_importance_is_the_plain_mean():
    input = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]], requires_grad=True)
    importance = torch.zeros_like(input, requires_grad=True)
    output = lan_pool2d(input, importance, kernel_size=2, stride=1, padding=1)
    assert_close(output.flatten(), torch.tensor([1, 1.5, 2, 2, 3, 4, 3, 4.5, 6]))
    grad_input, grad_importance = torch.autograd.grad(output[0, 0, 1, 1], (input, importance))
    assert grad_input.flatten().tolist() == [0.25] * 4
    assert grad_importance.flatten().tolist() == [0] * 4


@pytest.mark.parametrize('scale', [1e-40, 3e38])
def test_any_scale_of_the_importance(input, scale):
    input = input.float()
    assert_close(lan_pool2d(input, torch.full_like(input, scale)), F.avg_pool2d(input, 3, 2, 1, count_include_pad=False))


@pytest.mark.parametrize('value', [float('inf'), float('nan')])
def test_infinite_importance_and_nan_come_out_as_nan(value):
    importance = torch.ones(1, 1, 4, 4)
    importance[0, 0, 3, 3] = value
    assert lan_pool2d(torch.rand(1, 1, 4, 4), importance, 2, 2, 0).isnan().flatten().tolist() == [False, False, False, True]
