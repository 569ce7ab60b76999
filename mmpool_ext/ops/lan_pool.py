"""Local aggregation and normalization: the formula of which every pooling here is a case."""

import torch
from torch import Tensor

from . import _extension
from .tracing import traceable
from .window import Window, check_shape, check_weight, wide

__all__ = ['lan_pool2d']


@traceable
def lan_pool2d(
    input: Tensor, importance: Tensor, kernel_size=3, stride=2, padding=1, *, dilation=1, ceil_mode: bool = False, backend: str = 'auto'
) -> Tensor:
    """Average each window with the weights ``importance``.

    ``out = sum(importance * input) / sum(importance)``: Eq. 1 of Gao et al., "LIP: Local Importance-based Pooling", ICCV 2019 (there
    ``F(I)``). Each window's importance is divided by its largest first, so that no sum overflows; a half is computed in float32. Padding
    takes no weight. A window without any importance is the plain mean of its pixels and sends no gradient to ``importance``.
    ``inf`` and NaN come out as NaN. A negative importance is no weight that the paper knows: the result is then unspecified.

    Args:
        input: Features ``(N, C, H, W)``: float64, float32, float16 or bfloat16.
        importance: Weights >= 0, the shape and device of ``input``; its dtype, or float32 beside a half.
        kernel_size: Window edge in input pixels, >= 1; an int or a (vertical, horizontal) pair, as are the next three.
        stride: Step from window to window, >= 1.
        padding: Pixels added on each side, 0 to half of the window, ``dilation * (kernel_size - 1) + 1``.
        dilation: Step from pixel to pixel inside a window, >= 1.
        ceil_mode: Whether to keep a last window that the padded input fills only in part.
        backend: ``'auto'``, the compiled op where it is built for the device; ``'native'``, that or an error; ``'torch'``, plain PyTorch.

    Returns:
        ``(N, C, H_out, W_out)`` with ``H_out = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``; dtype of ``input``.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If shapes or devices differ, an argument is out of range, or a window would hold only padding.
        RuntimeError: If ``backend='native'`` asks for what is not built.

    Example:
        >>> input = torch.tensor([[[[1., 2.], [3., 4.]]]])
        >>> lan_pool2d(input, torch.tensor([[[[0., 1.], [0., 3.]]]]), kernel_size=2, padding=0)
        tensor([[[[3.5000]]]])
    """
    window = Window.checked('lan_pool2d', input, kernel_size, stride, padding, dilation, ceil_mode)
    check_weight('lan_pool2d', 'importance', importance, input)
    check_shape('lan_pool2d', 'importance', importance, input)
    if _extension.use_native('lan_pool2d', backend, input):
        return torch.ops.mmpool_ext.lan_pool2d(input, importance, *window)
    return composite(input, importance, window)


def composite(input: Tensor, importance: Tensor, window: Window) -> Tensor:
    """Compute :func:`lan_pool2d` from PyTorch's own functions: differentiable to any order."""
    weights = window.cells(wide(importance))
    largest = weights.detach().amax(0)
    weights = torch.where(largest == 0, window.valid(input).to(weights.dtype), weights / largest.masked_fill(largest == 0, 1))
    return ((weights / weights.sum(0)) * window.cells(wide(input))).sum(0).to(input.dtype)


_extension.register('lan_pool2d', composite)
