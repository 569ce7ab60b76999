"""PolynomialPool2d: the paper's unit, its start, its limits and its checks."""

import pytest
import reference
import torch
from releases import HALF, needs_torch
from torch import nn

from mmpool_ext.layers import PolynomialPool2d

WINDOWS = [((2, 2), (2, 2), (0, 0), False), ((3, 3), (2, 2), (1, 1), False), ((3, 2), (2, 3), (1, 0), True), ((3, 3), (1, 1), (1, 1), False)]


def force(pool, alpha):
    """Make the side branch say ``alpha`` everywhere."""
    nn.init.zeros_(pool.side_branch[2].weight)
    nn.init.constant_(pool.side_branch[2].bias, alpha - pool.side_branch.initial_alpha)
    return pool


def shift_of(input):
    """What is taken from an input before it is pooled: Eq. 2, a little enlarged so that a zero keeps some weight."""
    return input.detach().amin((2, 3), keepdim=True).clamp(max=0) * 1.001 - 1e-6


def alpha_of(pool, input):
    seen = []
    with pool.side_branch.register_forward_hook(lambda module, args, output: seen.append(output.detach())):
        output = pool(input)
    return output, seen[0]


def test_by_hand():
    input = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    pool = force(PolynomialPool2d(1), 1.0)
    torch.testing.assert_close(pool(input), torch.full((1, 1, 1, 1), (1 + 4 + 9 + 16) / (1 + 2 + 3 + 4)))
    # by the product rule: dy/dx = (2x - y) / sum(x)
    gradient = torch.autograd.grad(pool(input.requires_grad_()), input, torch.tensor([[[[2.0]]]]))[0]
    torch.testing.assert_close(gradient, 2 * torch.tensor([[[[-0.1, 0.1], [0.3, 0.5]]]]), rtol=1e-5, atol=1e-5)


def test_side_branch_by_hand():
    pool = PolynomialPool2d(1, initial_alpha=5.0)
    with torch.no_grad():
        pool.side_branch[0].weight.copy_(torch.tensor([[[[0.01, 0.02], [-0.03, -0.02]]]]))
        pool.side_branch[2].weight.fill_(2.0)
    input = torch.tensor([[[[1.0, 2.0, 0.0, 4.0], [3.0, 4.0, 1.0, 0.0]]]])
    _, alpha = alpha_of(pool, input)
    # 100 (0.01 + 0.04 - 0.09 - 0.08) = -12, times PReLU's 0.25, times 2, plus 5 is -1, clipped to 0; 100 (0.08 - 0.03) = 5, times 2, plus 5
    torch.testing.assert_close(alpha, torch.tensor([[[[0.0, 15.0]]]]))


@pytest.mark.parametrize('window', WINDOWS)
@pytest.mark.parametrize('alpha', [0.0, 35.0, None], ids=['average', 'clip', 'initial'])
def test_against_float64_reference(window, alpha):
    generator = torch.Generator().manual_seed(1)
    pool = PolynomialPool2d(3, *window[:3], ceil_mode=window[3]).double()
    if alpha is not None:
        force(pool, alpha)
    input = torch.randn(2, 3, 7, 6, generator=generator, dtype=torch.float64).clamp(min=0).requires_grad_()
    output, alphas = alpha_of(pool, input)
    grad_output = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    expected, grad_input, _ = reference.polynomial_pool2d(input.detach() - shift_of(input), alphas, grad_output, *window)
    torch.testing.assert_close(output, expected + shift_of(input))
    if alpha is not None:  # no gradient through a side branch whose convolution is zero or clipped
        torch.testing.assert_close(torch.autograd.grad(output, input, grad_output)[0], grad_input)


def test_starts_near_max_pooling_and_gets_nearer_as_alpha_grows():
    """Distance to max pooling over its norm, random ReLU maps: 0.3 to 0.6% at the paper's start, 0.14 to 0.26% at its largest order."""
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(1, 64, 32, 32, generator=generator).clamp(min=0)
    for kernel, padding in ((2, 0), (3, 1)):
        pool = PolynomialPool2d(64, kernel, 2, padding, alpha_range=(0, 200))
        largest = torch.nn.functional.max_pool2d(input, kernel, 2, padding)
        distances = [((pool(input) - largest).norm() / largest.norm()).item()]
        distances += [((force(pool, alpha)(input) - largest).norm() / largest.norm()).item() for alpha in (20.0, 35.0, 200.0)]
        print(f'distance to {kernel}x{kernel} max pooling at the start, 20, 35, 200: {[f"{100 * d:.2f}%" for d in distances]}')
        assert 0.002 < distances[0] < 0.007
        assert distances[1] > distances[2] > distances[3]
        assert 0.001 < distances[2] < 0.003


@pytest.mark.parametrize(('initial_alpha', 'low'), [(20.0, 0.0), (0.01, 0.0), (1.01, 1.0)])
def test_alpha_starts_where_it_is_told_and_inside_its_range(initial_alpha, low):
    """As a constant that no weight decay reaches: the last bias starts at 0."""
    torch.manual_seed(0)
    pool = PolynomialPool2d(64, initial_alpha=initial_alpha, alpha_range=(low, 35))
    _, alpha = alpha_of(pool, torch.rand(1, 64, 16, 16))
    assert pool.side_branch[2].bias.eq(0).all()
    assert 0 < (alpha - initial_alpha).abs().max() < (initial_alpha - low) / 20
    assert pool.side_branch[0].weight.std().item() == pytest.approx(0.01, rel=0.2)


def test_a_small_order_is_near_average_pooling_on_maps_with_zeros():
    """By the formula a zero has no weight at an order of 0.01, and half of these maps are zeros: the mean would double."""
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(1, 64, 32, 32, generator=generator).clamp(min=0)
    mean = torch.nn.functional.avg_pool2d(input, 3, 1, 1, count_include_pad=False)
    for initial_alpha, most in ((0.01, 0.07), (0.001, 0.007)):
        distance = (PolynomialPool2d(64, 3, 1, 1, initial_alpha=initial_alpha)(input) - mean).norm() / mean.norm()
        print(f'distance to average pooling at {initial_alpha}: {100 * distance:.2f}%')
        assert distance < most
    assert (PolynomialPool2d(64, 3, 1, 1)(input) - mean).norm() > 2 * mean.norm()


@pytest.mark.parametrize('dtype', [torch.float32, HALF, torch.bfloat16])
def test_the_smallest_value_of_a_large_map_keeps_its_weight(dtype):
    """-40 less the shift must not round to 0."""
    input = -40 * torch.ones(1, 1, 2, 2)
    input[0, 0, 0, 0] = 40
    output = force(PolynomialPool2d(1).to(dtype), 0.01)(input.to(dtype))
    assert output.item() == pytest.approx(-20, abs=2)


@pytest.mark.parametrize('dtype', [HALF, torch.bfloat16])
@pytest.mark.parametrize('size', [1e-4, 1.0, 700.0, 1e4])
def test_halves_of_any_size(dtype, size):
    torch.manual_seed(0)
    pool = PolynomialPool2d(4).to(dtype)
    input = (size * torch.rand(2, 4, 6, 6)).to(dtype).requires_grad_()
    output = pool(input)
    output.backward(torch.ones_like(output))
    assert output.dtype == dtype
    assert input.grad.isfinite().all()
    torch.testing.assert_close(output.float(), pool.float()(input.detach().float()), rtol=2 * torch.finfo(dtype).eps, atol=1e-7)


def test_five_pools_of_vgg16_hold_10304_parameters():
    """Sec. 3.5: the side branches are less than 0.08% of VGG16's (convolutional) parameters."""
    torchvision = pytest.importorskip('torchvision')
    count = sum(p.numel() for channels in (64, 128, 256, 512, 512) for p in PolynomialPool2d(channels).parameters())
    trunk = sum(p.numel() for p in torchvision.models.vgg16().features.parameters())
    assert count == 10304
    assert f'{100 * count / trunk:.3f}' == '0.070'


def test_negative_inputs_are_shifted_per_sample_and_channel():
    """Eq. 2 but for a thousandth, and nothing that one image holds changes another."""
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(2, 3, 6, 6, generator=generator, dtype=torch.float64)
    input[0, 0] = input[0, 0].abs() + 1  # a positive smallest value does not count
    pool = force(PolynomialPool2d(3).double(), 4.0)
    shift = shift_of(input)
    alpha = torch.full((2, 3, 3, 3), 4.0)
    torch.testing.assert_close(pool(input), reference.polynomial_pool2d(input - shift, alpha)[0] + shift)
    torch.testing.assert_close(pool(input)[:1], pool(input[:1]))
    exact = input.amin((2, 3), keepdim=True).clamp(max=0)
    torch.testing.assert_close(pool(input), reference.polynomial_pool2d(input - exact, alpha)[0] + exact, rtol=0, atol=1e-2)


def test_side_input_may_be_detached():
    input = torch.rand(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    grad_output = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    gradients = []
    for detach in (True, False):
        torch.manual_seed(0)
        pool = PolynomialPool2d(2, initial_alpha=2.0, detach_side_input=detach).double()
        output, alpha = alpha_of(pool, input)
        gradients.append(torch.autograd.grad(output, [input, pool.side_branch[0].weight], grad_output))
        expected = reference.polynomial_pool2d(input.detach() - shift_of(input), alpha, grad_output)[1]
        assert torch.allclose(gradients[-1][0], expected) == detach
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


@needs_torch(2, 4)
def test_half_precision_activations_do_not_overflow_the_side_branch():
    pool = PolynomialPool2d(1)
    input = (1000 * torch.rand(1, 1, 4, 4)).half().requires_grad_()  # 100 times that is beyond float16
    with torch.autocast('cpu', dtype=torch.float16):
        output = pool(input)
    output.backward(torch.ones_like(output))
    assert output.dtype == torch.float16
    assert output.isfinite().all()
    assert input.grad.isfinite().all()


@pytest.mark.parametrize('alpha_range', [(3.0, 3.0), (5.0, 2.0), (-1.0, 2.0)])
def test_bad_range(alpha_range):
    with pytest.raises(ValueError, match=r'PolynomialPool2d: alpha_range must be \(low, high\) with 0 <= low < high, but got \(.*\)'):
        PolynomialPool2d(1, alpha_range=alpha_range)


def test_bad_arguments():
    for initial_alpha in (40, 35.0, 0.0):  # on an edge, half of all windows would be clipped and get no gradient
        with pytest.raises(ValueError, match=rf'initial_alpha must be strictly inside alpha_range \(0.0, 35.0\), but got {initial_alpha}'):
            PolynomialPool2d(1, initial_alpha=initial_alpha)
    with pytest.raises(ValueError, match='PolynomialPool2d: input_scale must be positive, but got 0'):
        PolynomialPool2d(1, input_scale=0)
    with pytest.raises(ValueError, match=r'input must not be negative with shift_negative=False, but got a smallest value of -2'):
        PolynomialPool2d(1, shift_negative=False)(torch.tensor([[[[1.0, -2.0], [0.0, 0.0]]]]))


def test_without_the_shift_a_positive_input_is_the_same():
    torch.manual_seed(0)
    pool = PolynomialPool2d(2)
    input = torch.rand(1, 2, 4, 4)
    shifted = pool(input)
    pool.shift_negative = False
    torch.testing.assert_close(pool(input), shifted)
