"""P-pooling: between average and maximum, by a learnt exponent."""

import torch
from torch import Tensor

from . import _extension
from .tracing import is_exporting, traceable
from .window import Window, check_weight, wide

__all__ = ['polynomial_pool2d']

EPS = 1e-6


@traceable
def polynomial_pool2d(input: Tensor, alpha: Tensor, kernel_size=2, stride=2, padding=0, *, ceil_mode: bool = False, backend: str = 'auto') -> Tensor:
    """Average each window with weights ``input ** alpha``.

    ``out = sum(input ** (alpha + 1)) / sum(input ** alpha)``: Eq. 1 of Wei et al., "Building Detail-Sensitive Semantic Segmentation
    Networks with Polynomial Pooling", CVPR 2019. ``alpha = 0`` is the mean, ``alpha -> inf`` the maximum. Computed from the ratios to
    the window's largest value, so no ``alpha`` overflows; a half is computed in float32. Padding takes no weight, not even at ``alpha = 0``.
    Unlike the authors' code, powers are exact and no constant is added to the denominator: at ``alpha = 30`` that one turns windows
    below 0.2 into zeros.

    An all-zero window gives 0, the gradient ``1 / n`` to each of its n pixels and none to ``alpha``. A pixel below zero counts as zero and
    gets no gradient. For ``0 < alpha < 1``, where the derivative at a zero pixel is infinite, its ratio counts as 1e-6 there.
    ``inf`` and NaN come out as NaN.

    Args:
        input: Features >= 0 ``(N, C, H, W)``: float64, float32, float16 or bfloat16.
        alpha: Exponents >= 0 on the device of ``input``, in its dtype, or float32 beside a half: the shape of the output, or one that
            broadcasts to it.
        kernel_size: Window edge in input pixels, >= 1; an int or a (vertical, horizontal) pair, as are the next two.
        stride: Step from window to window, >= 1.
        padding: Pixels added on each side, 0 to half of ``kernel_size``.
        ceil_mode: Whether to keep a last window that the padded input fills only in part.
        backend: ``'auto'``, the compiled op where it is built for the device; ``'native'``, that or an error; ``'torch'``, plain PyTorch.

    Returns:
        ``(N, C, H_out, W_out)`` with ``H_out = (H + 2 * padding - kernel_size) // stride + 1``; dtype of ``input``.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If ``alpha`` does not broadcast to the output, devices differ, or an argument is out of range.
        RuntimeError: If ``backend='native'`` asks for what is not built.

    Example:
        >>> input = torch.tensor([[[[1., 2.], [3., 4.]]]])
        >>> polynomial_pool2d(input, torch.tensor(1.))
        tensor([[[[3.]]]])
    """
    window = Window.checked('polynomial_pool2d', input, kernel_size, stride, padding, 1, ceil_mode)
    check_weight('polynomial_pool2d', 'alpha', alpha, input)
    shape = (*input.shape[:2], *window.output_size(*input.shape[2:]))
    if alpha.dim() > 4 or any(edge not in (1, size) for edge, size in zip(reversed(alpha.shape), reversed(shape), strict=False)):
        raise ValueError(f'polynomial_pool2d: alpha must broadcast to the output, but got alpha {tuple(alpha.shape)} and output {shape}')
    alpha = alpha.expand(shape)
    if _extension.use_native('polynomial_pool2d', backend, input):
        return torch.ops.mmpool_ext.polynomial_pool2d(input, alpha, *window)
    return composite(input, alpha, window)


def composite(input: Tensor, alpha: Tensor, window: Window) -> Tensor:
    """Compute :func:`polynomial_pool2d` from PyTorch's own functions: twice differentiable."""
    values = wide(input)
    values = values.masked_fill(values < 0, 0)  # a zero gets its gradient, which clamp() gives before torch 2.14 alone
    weighted = window.cells(values), wide(alpha), window.valid(input)
    # A traced module cannot be saved with a function of ours in it, and needs no gradient
    average = _WeightedByPower.forward if is_exporting() else _WeightedByPower.apply
    return average(*weighted).to(input.dtype)


def _power(ratio: Tensor, exponent: Tensor) -> Tensor:
    """``ratio ** exponent`` with ``0 ** 0 = 1`` whose gradients are finite at ratio 0."""
    zero = ratio == 0
    return torch.where(zero, (exponent == 0).to(ratio.dtype), ratio.masked_fill(zero, 1) ** exponent)


def _ratios(cells: Tensor, alpha: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The window's largest value, the ratios to it (1 in an all-zero window) and the unnormalised weights."""
    largest = cells.detach().amax(0)
    ratio = (cells / largest.masked_fill(largest == 0, 1)).masked_fill(largest == 0, 1)
    return largest, ratio, _power(ratio, alpha) * valid


class _WeightedByPower(torch.autograd.Function):
    """Cells ``(K, N, C, H_out, W_out)`` weighted by their powers; the gradient is written out to settle what happens at zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(cells, alpha, valid):
        _, _, weight = _ratios(cells, alpha, valid)
        return (weight * cells).sum(0) / weight.sum(0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad_output):
        cells, alpha, valid = ctx.saved_tensors
        largest, ratio, weight = _ratios(cells, alpha, valid)
        total = weight.sum(0)
        weight = weight / total
        mean = (weight * ratio).sum(0)  # the output in units of the window's largest value
        slope = _power(ratio.masked_fill((alpha < 1) & (ratio < EPS), EPS), alpha - 1)
        grad_cells = grad_output * (weight * (1 + alpha) - alpha * mean * slope * valid / total)
        log = ratio.masked_fill(ratio == 0, 1).log()
        grad_alpha = grad_output * largest * (weight * (ratio - mean) * log).sum(0)
        return grad_cells, grad_alpha, None


_extension.register('polynomial_pool2d', composite)
