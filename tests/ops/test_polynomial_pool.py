import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from mmpool_ext.ops import polynomial_pool2d


@pytest.fixture
def input():
    return torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


def grads(input, alpha, **keywords):
    input, alpha = input.requires_grad_(), alpha.requires_grad_()
    output = polynomial_pool2d(input, alpha, **keywords)
    return output.detach(), *torch.autograd.grad(output, (input, alpha), torch.ones_like(output))


@pytest.mark.parametrize('alpha', [0.3, 1.0, 2.0, 20.0])
def test_gradients_to_second_order(input, alpha):
    arguments = input[:1, :1, :5, :5].requires_grad_(), torch.full((1, 1, 3, 3), alpha, dtype=torch.float64, requires_grad=True)
    op = lambda input, alpha: polynomial_pool2d(input, alpha, 3, 2, 1)  # noqa: E731
    assert torch.autograd.gradcheck(op, arguments)
    assert torch.autograd.gradgradcheck(op, arguments)


def test_reference_vector_of_the_authors():
    """The author's own test, with the two misprints of its comments corrected."""
    input = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=torch.float64)
    output, grad_input, grad_alpha = grads(input, torch.full((1, 1, 3, 3), 2.0, dtype=torch.float64), kernel_size=2, stride=1, padding=1)
    digits = {'atol': 5e-5, 'rtol': 0, 'check_dtype': False}
    assert_close(output[0, 0], torch.tensor([[1, 1.8, 2], [2.8, 3.3333, 3.6], [3, 3.64, 4]]), **digits)
    assert_close(grad_alpha[0, 0], torch.tensor([[0, 0.1109, 0], [0.1978, 0.2598, 0.2218], [0, 0.0663, 0]]), **digits)
    assert_close(grad_input[0, 0], torch.tensor([[0.4978, 1.7956], [2.4597, 3.4263]]), **digits)


def test_alpha_zero_is_average_pooling_zeros_and_padding_told_apart(input):
    input = input * (input > 0.5)
    expected = F.avg_pool2d(input, 3, 2, 1, count_include_pad=False)
    assert_close(polynomial_pool2d(input, torch.zeros((), dtype=torch.float64), 3, 2, 1), expected)


def test_large_alpha_is_max_pooling(input):
    assert_close(polynomial_pool2d(input, torch.tensor(1e7, dtype=torch.float64)), F.max_pool2d(input, 2))


def test_scale_passes_through_and_output_lies_between(input):
    alpha = torch.rand(2, 3, 4, 5, dtype=torch.float64) * 40
    output = polynomial_pool2d(input, alpha)
    assert_close(polynomial_pool2d(1e-9 * input, alpha), 1e-9 * output)
    assert (output <= F.max_pool2d(input, 2) * (1 + 1e-12)).all()
    assert (output >= -F.max_pool2d(-input, 2) * (1 - 1e-12)).all()


def test_euler_identity_and_sign_of_the_alpha_gradient(input):
    output, grad_input, grad_alpha = grads(input, torch.rand(2, 3, 4, 5, dtype=torch.float64) * 40)
    assert_close(4 * F.avg_pool2d(input * grad_input, 2), output)
    assert (grad_alpha >= 0).all()


@pytest.mark.parametrize('scale', [1e-3, 20.0, 1e30, 1e-41])
def test_any_scale_at_alpha_35(scale):
    input = torch.full((1, 1, 2, 2), scale)
    output, grad_input, _ = grads(input, torch.full((1, 1, 1, 1), 35.0))
    assert_close(output.item(), input[0, 0, 0, 0].item())
    assert_close(grad_input, torch.full_like(grad_input, 0.25))


@pytest.mark.parametrize(('alpha', 'grad_output'), [(50.0, 0.3), (1e6, 0.3), (1e7, 10.0), (50.0, 1e37)])
@pytest.mark.parametrize(('pixels', 'shares'), [([1, 0, 0, 0], [1, 0, 0, 0]), ([3, 1, 3, 0], [0.5, 0, 0.5, 0]), ([0, 0, 0, 0], [0.25] * 4)])
def test_gradient_of_the_largest_pixels_is_exact_for_any_alpha(alpha, grad_output, pixels, shares):
    """``1 + alpha`` and ``alpha`` cancel, before they are multiplied by anything."""
    input = torch.tensor(pixels, dtype=torch.float32).view(1, 1, 2, 2).requires_grad_()
    output = polynomial_pool2d(input, torch.tensor(alpha))
    (grad_input,) = torch.autograd.grad(output, input, torch.full_like(output, grad_output))
    assert_close(grad_input.flatten() / grad_output, torch.tensor(shares, dtype=torch.float32))


@pytest.mark.parametrize('alpha', [0.0, 0.5, 1.0, 2.0])
def test_all_zero_window_shares_its_gradient(alpha):
    output, grad_input, grad_alpha = grads(torch.zeros(1, 1, 3, 3), torch.full((1, 1, 1, 1), alpha), kernel_size=2, stride=2)
    assert output.item() == 0
    assert grad_input[0, 0, :2, :2].flatten().tolist() == [0.25] * 4
    assert grad_alpha.item() == 0


@pytest.mark.parametrize('alpha', [0.0, 0.5, 2.0])
@pytest.mark.parametrize('edge', [2, 3])
def test_all_zero_window_over_the_border_shares_among_its_pixels_alone(alpha, edge):
    output, grad_input, _ = grads(torch.zeros(1, 1, 3, 3), torch.full((1, 1, 2, 2), alpha), kernel_size=edge, stride=2, padding=1)
    assert output.flatten().tolist() == [0] * 4
    shares = torch.tensor([0.5, 1.0, 0.5] if edge == 3 else [1.0, 0.5, 0.5])  # along one axis: of the windows that hold a pixel
    assert grad_input[0, 0].tolist() == torch.outer(shares, shares).tolist()


@pytest.mark.parametrize(
    ('alpha', 'expected'),
    [(3.0, 0.0), (1.0, -14 / 6 / 6), (0.0, 0.25), (0.5, None)],
)
def test_gradient_of_a_zero_pixel(alpha, expected):
    input = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]], dtype=torch.float64)
    output, grad_input, _ = grads(input, torch.tensor([[[[alpha]]]], dtype=torch.float64))
    if expected is None:  # the derivative is infinite: the ratio counts as 1e-6
        weights = (input / 3) ** alpha
        expected = -alpha * output.item() / 3 * 1e-6 ** (alpha - 1) / weights.sum().item()
    assert_close(grad_input[0, 0, 0, 0].item(), expected)
    assert grad_input.isfinite().all()


def test_pixel_below_zero_counts_as_zero_without_gradient():
    input = torch.tensor([[[[-5.0, 1.0], [2.0, 3.0]]]])
    output, grad_input, _ = grads(input, torch.tensor([[[[1.0]]]]))
    assert_close(output.item(), 14 / 6)
    assert grad_input[0, 0, 0, 0] == 0


@pytest.mark.parametrize('shape', [(), (1,), (4, 1), (3, 1, 1), (2, 1, 4, 5)])
def test_alpha_broadcasts(input, shape):
    alpha = torch.rand(shape, dtype=torch.float64) * 10
    output, grad_input, grad_alpha = grads(input, alpha)
    expected = grads(input, alpha.detach().expand(2, 3, 4, 5).contiguous())
    assert_close(output, expected[0])
    assert_close(grad_input, expected[1])
    assert_close(grad_alpha, expected[2].sum_to_size(shape))


def test_infinity_comes_out_as_nan():
    input = torch.ones(1, 1, 2, 4)
    input[..., 0] = float('inf')
    assert polynomial_pool2d(input, torch.tensor(2.0)).isnan().flatten().tolist() == [True, False]
