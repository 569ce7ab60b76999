"""The base class of pooling layers: one set of constructor arguments, so that a config can replace one pooling by another."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from ..ops import lip_pool2d
from ..ops.tracing import is_exporting, is_symbolic, traceable
from ..ops.window import Window, pair


def without_autocast(input: Tensor):
    """Context in which autocast does not lower any precision; the ``meta`` device knows no autocast, and ``torch.fx`` records no contexts."""
    return nullcontext() if isinstance(input, Proxy) or input.is_meta else torch.autocast(input.device.type, enabled=False)


class WindowPool2d(nn.Module):
    """The base class of the pooling layers: their arguments and the arithmetic of their windows.

    Derive from it to write a pooling of your own; ``forward`` is all that it must add. A subclass that cannot dilate its window leaves
    ``dilation`` out of its own constructor. CONTRIBUTING.md has an example that works in :class:`LIPResNet` and :func:`Repooled`.

    Args:
        in_channels: Channels of the input, which pooling keeps.
        kernel_size: Window edge in pixels, or ``(height, width)``.
        stride: Distance of windows in pixels, or a pair.
        padding: Border on each side in pixels, at most half a window. It takes no weight in any mean.
        ceil_mode: Whether a last window that the padded input fills only in part counts, as in torch's poolings.
        dilation: Distance of the pixels of a window, or a pair.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` with
        ``H_out = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``; with ``ceil_mode`` the division rounds up, as in torch.

    Raises:
        ValueError: If a size is neither a positive int nor a pair of them, or the border is wider than half a window.
    """

    def __init__(self, in_channels: int, kernel_size=2, stride=2, padding=0, *, ceil_mode: bool = False, dilation=1):
        super().__init__()
        name = type(self).__name__
        if in_channels < 1:
            raise ValueError(f'{name}: in_channels must be at least 1, but got {in_channels}')
        self.in_channels = in_channels
        self.kernel_size, self.stride = pair(name, 'kernel_size', kernel_size, 1), pair(name, 'stride', stride, 1)
        self.padding, self.dilation = pair(name, 'padding', padding, 0), pair(name, 'dilation', dilation, 1)
        self.ceil_mode = ceil_mode
        edges = [gap * (kernel - 1) + 1 for gap, kernel in zip(self.dilation, self.kernel_size, strict=True)]
        if any(2 * border > edge for border, edge in zip(self.padding, edges, strict=True)):
            dilated = f' with dilation {dilation}' if max(self.dilation) > 1 else ''
            raise ValueError(f'{name}: padding must be at most half of kernel_size, but got {padding} and {kernel_size}{dilated}')

    @property
    def window(self) -> tuple:
        """``(kernel_size, stride, padding)``: the arguments of torch's poolings and convolutions in their order."""
        return self.kernel_size, self.stride, self.padding

    def extra_repr(self) -> str:
        """Show the window in ``print(model)``."""
        window = f'kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}'
        return f'{self.in_channels}, {window}' + (f', dilation={self.dilation}' if max(self.dilation) > 1 else '')

    def _windows(self) -> Window:
        return Window(*self.window, self.dilation, self.ceil_mode)

    def _mean(self, input: Tensor) -> Tensor:
        """The mean of each window, without the padding."""
        if max(self.dilation) > 1:
            return lip_pool2d(input, torch.zeros_like(input), *self.window, dilation=self.dilation, ceil_mode=self.ceil_mode)
        if self.ceil_mode and is_exporting():  # torch's own ceil_mode fixes the number of windows in an exported graph
            pixels = torch.ones(1, 1, *input.shape[2:], dtype=input.dtype, device=input.device)
            return F.avg_pool2d(self._pad_tail(input), *self.window) / F.avg_pool2d(self._pad_tail(pixels), *self.window)
        return F.avg_pool2d(input, *self.window, self.ceil_mode, count_include_pad=False)

    def _largest(self, input: Tensor) -> Tensor:
        """The largest value of each window."""
        if self.ceil_mode and is_exporting():
            return F.max_pool2d(self._pad_tail(input, float('-inf')), *self.window, self.dilation)
        return F.max_pool2d(input, *self.window, self.dilation, self.ceil_mode)

    def _pad_tail(self, input: Tensor, value: float = 0.0) -> Tensor:
        """Add the border at the bottom and the right that gives a strided convolution the size which ``ceil_mode`` gives a pooling."""
        return pad_tail(input, self._windows(), value)


@traceable
def pad_tail(input: Tensor, window: Window, value: float) -> Tensor:
    """Do the work of ``WindowPool2d._pad_tail``."""
    edges = [gap * (kernel - 1) + 1 for gap, kernel in zip(window.dilation, window.kernel_size, strict=True)]
    # The most that any size may need, which reaches no further window than ceil_mode has: export cannot branch on sizes
    tail = [min(stride, edge - border) - 1 for stride, edge, border in zip(window.stride, edges, window.padding, strict=True)]
    if not window.ceil_mode or not any(tail):
        return input
    if not is_symbolic():  # a copy less where every window is full
        spans = [size + 2 * border - edge for size, border, edge in zip(input.shape[2:], window.padding, edges, strict=True)]
        if not any(span % stride for span, stride in zip(spans, window.stride, strict=True)):
            return input
    return F.pad(input, (0, tail[1], 0, tail[0]), value=value)
