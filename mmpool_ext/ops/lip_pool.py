"""Local importance-based pooling."""

import torch
from torch import Tensor

from . import _extension
from .tracing import traceable
from .window import Window, check_shape, check_weight, wide

__all__ = ['lip_pool2d']


@traceable
def lip_pool2d(
    input: Tensor, logit: Tensor, kernel_size=3, stride=2, padding=1, *, dilation=1, ceil_mode: bool = False, backend: str = 'auto'
) -> Tensor:
    """Average each window with weights ``softmax(logit)`` taken over that window.

    ``out = sum(exp(logit) * input) / sum(exp(logit))``: Eq. 5 of Gao et al., "LIP: Local Importance-based Pooling", ICCV 2019.
    The window's largest logit is subtracted first, so any finite logit is safe; a half is computed in float32. Padding takes no weight.
    A logit of ``-inf`` is no weight; a window that holds nothing else is the plain mean of its pixels and sends no gradient to ``logit``.
    ``+inf`` and NaN come out as NaN. Unlike the authors' CUDA kernel, odd sizes follow torch's pooling arithmetic and ``padding`` is honoured.

    Args:
        input: Features ``(N, C, H, W)``: float64, float32, float16 or bfloat16.
        logit: Log-importance, the shape and device of ``input``; its dtype, or float32 beside a half.
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
        >>> lip_pool2d(input, torch.zeros_like(input), kernel_size=2, padding=0)
        tensor([[[[2.5000]]]])
        >>> lip_pool2d(input, 100 * input, kernel_size=2, padding=0)
        tensor([[[[4.]]]])
    """
    window = Window.checked('lip_pool2d', input, kernel_size, stride, padding, dilation, ceil_mode)
    check_weight('lip_pool2d', 'logit', logit, input)
    check_shape('lip_pool2d', 'logit', logit, input)
    if _extension.use_native('lip_pool2d', backend, input):
        return torch.ops.mmpool_ext.lip_pool2d(input, logit, *window)
    return composite(input, logit, window)


def composite(input: Tensor, logit: Tensor, window: Window) -> Tensor:
    """Compute :func:`lip_pool2d` from PyTorch's own functions: differentiable to any order."""
    logits = window.cells(wide(logit), float('-inf'))
    unweighted = (logits == float('-inf')).all(0)
    logits = logits.masked_fill(unweighted & window.valid(input), 0)
    return (logits.softmax(0) * window.cells(wide(input))).sum(0).to(input.dtype)


_extension.register('lip_pool2d', composite)
