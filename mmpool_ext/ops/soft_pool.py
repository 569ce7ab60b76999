"""SoftPool: each window weighted by the softmax of its own values."""

import torch
from torch import Tensor

from . import _extension, lip_pool
from .tracing import traceable
from .window import Window

__all__ = ['soft_pool2d']


@traceable
def soft_pool2d(input: Tensor, kernel_size=3, stride=2, padding=1, *, dilation=1, ceil_mode: bool = False, backend: str = 'auto') -> Tensor:
    """Average each window with the weights ``exp(input)``.

    ``out = sum(exp(input) * input) / sum(exp(input))``: Eq. 2 and 3 of Stergiou et al., "Refining activation downsampling with SoftPool", ICCV 2021.
    That is :func:`lip_pool2d` with the input as its own logit, but reads and writes one map, not two. The gradient runs through the weights too.
    Padding takes no weight. ``inf`` and NaN come out as NaN. A half is computed in float32.

    Args:
        input: Features ``(N, C, H, W)``: float64, float32, float16 or bfloat16.
        kernel_size: Window edge in input pixels, >= 1; an int or a (vertical, horizontal) pair, as are the next three.
        stride: Step from window to window, >= 1.
        padding: Pixels added on each side, 0 to half of the window, ``dilation * (kernel_size - 1) + 1``.
        dilation: Step from pixel to pixel inside a window, >= 1.
        ceil_mode: Whether to keep a last window that the padded input fills only in part.
        backend: ``'auto'``, the compiled op where it is built for the device; ``'native'``, that or an error; ``'torch'``, plain PyTorch.

    Returns:
        ``(N, C, H_out, W_out)`` with ``H_out = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``; dtype of ``input``.

    Raises:
        TypeError: If the dtype is not one of those above.
        ValueError: If ``input`` is not ``(N, C, H, W)``, an argument is out of range, or a window would hold only padding.
        RuntimeError: If ``backend='native'`` asks for what is not built.

    Example:
        >>> soft_pool2d(torch.tensor([[[[0., 0.], [0., 1.]]]]), kernel_size=2, padding=0)
        tensor([[[[0.4754]]]])
    """
    window = Window.checked('soft_pool2d', input, kernel_size, stride, padding, dilation, ceil_mode)
    if _extension.use_native('soft_pool2d', backend, input):
        return torch.ops.mmpool_ext.soft_pool2d(input, *window)
    return composite(input, window)


def composite(input: Tensor, window: Window) -> Tensor:
    """Compute :func:`soft_pool2d` from PyTorch's own functions: differentiable to any order."""
    return lip_pool.composite(input, input, window)


_extension.register('soft_pool2d', composite)
