import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from mmpool_ext.ops import lip_pool2d

INF = float('inf')


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 9, 10, generator=generator), 3 * torch.randn(2, 3, 9, 10, generator=generator)


def test_gradients_to_second_order(tensors):
    input, logit = (tensor[:1, :1, :5, :5].double().requires_grad_() for tensor in tensors)
    assert torch.autograd.gradcheck(lip_pool2d, (input, logit))
    assert torch.autograd.gradgradcheck(lip_pool2d, (input, logit))


def test_constant_logit_is_average_pooling(tensors):
    expected = F.avg_pool2d(tensors[0], 3, 2, 1, count_include_pad=False)
    assert_close(lip_pool2d(tensors[0], torch.full_like(tensors[0], 7)), expected)


def test_steep_logit_is_max_pooling(tensors):
    assert_close(lip_pool2d(tensors[0], 1e6 * tensors[0]), F.max_pool2d(tensors[0], 3, 2, 1))


@pytest.mark.parametrize('shift', [1e3, -1e4])
def test_shift_of_the_logit_changes_nothing(tensors, shift):
    input, logit = tensors[0].double(), tensors[1].double()
    assert_close(lip_pool2d(input, logit + shift), lip_pool2d(input, logit))


def test_logit_gradient_of_a_window_sums_to_zero(tensors):
    logit = tensors[1].requires_grad_()
    output = lip_pool2d(tensors[0], logit, kernel_size=9, stride=9, padding=0)
    (grad,) = torch.autograd.grad(output, logit, torch.randn_like(output))
    assert_close(grad.sum((2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)


def test_minus_infinity_is_no_weight():
    input = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])
    logit = torch.tensor([[[[-INF, 0.0], [0.0, -INF]]]])
    assert lip_pool2d(input, logit, kernel_size=2, padding=0).item() == 2.5


def test_window_without_weight_is_the_plain_mean():
    input = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]], requires_grad=True)
    logit = torch.full_like(input, -INF, requires_grad=True)
    output = lip_pool2d(input, logit, kernel_size=2, stride=1, padding=1)
    assert_close(output.flatten(), torch.tensor([1, 1.5, 2, 2, 3, 4, 3, 4.5, 6]))
    grad_input, grad_logit = torch.autograd.grad(output[0, 0, 1, 1], (input, logit))
    assert grad_input.flatten().tolist() == [0.25] * 4
    assert grad_logit.flatten().tolist() == [0] * 4


@pytest.mark.parametrize('value', [INF, float('nan')])
def test_infinite_logit_and_nan_come_out_as_nan(value):
    logit = torch.zeros(1, 1, 4, 4)
    logit[0, 0, 3, 3] = value
    assert lip_pool2d(torch.rand(1, 1, 4, 4), logit, 2, 2, 0).isnan().flatten().tolist() == [False, False, False, True]


def test_logits_of_a_half_do_not_overflow():
    input = torch.rand(1, 2, 8, 8).half()
    logit = torch.full_like(input, 12.0)  # exp(12) is beyond float16
    assert_close(lip_pool2d(input, logit), F.avg_pool2d(input.float(), 3, 2, 1, count_include_pad=False).half(), atol=1e-3, rtol=0)
