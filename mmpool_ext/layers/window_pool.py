"""What every pooling layer here shares: one constructor shape and the arithmetic of windows."""

import torch
import torch.nn.functional as F
from mmengine.utils import to_2tuple
from torch import Tensor, nn


class WindowPool2d(nn.Module):
    """The constructor shape of every pooling layer, so that a config may put one in place of another.

    Args:
        in_channels: Channels of the input, which pooling keeps.
        kernel_size: Window edge in pixels, or ``(height, width)``.
        stride: Distance of windows in pixels, or a pair.
        padding: Border on each side in pixels, at most half a window. It takes no weight in any mean.
        ceil_mode: Whether windows that start inside the input but end outside it count, as in torch's poolings.

    Raises:
        ValueError: If a size is not positive or the border is wider than half a window.
    """

    def __init__(self, in_channels: int, kernel_size=2, stride=2, padding=0, ceil_mode: bool = False):
        super().__init__()
        name = type(self).__name__
        if in_channels < 1:
            raise ValueError(f'{name}: in_channels must be at least 1, but got {in_channels}')
        self.in_channels = in_channels
        self.kernel_size, self.stride, self.padding = to_2tuple(kernel_size), to_2tuple(stride), to_2tuple(padding)
        self.ceil_mode = ceil_mode
        if min(self.kernel_size + self.stride) < 1:
            raise ValueError(f'{name}: kernel_size and stride must be at least 1, but got {kernel_size} and {stride}')
        if any(not 0 <= 2 * border <= edge for border, edge in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(f'{name}: padding must be between 0 and half of kernel_size, but got {padding} for {kernel_size}')

    @property
    def window(self) -> tuple:
        """``(kernel_size, stride, padding)``, the arguments of torch's own poolings in their order."""
        return self.kernel_size, self.stride, self.padding

    def extra_repr(self) -> str:
        """Show the window in ``print(model)``."""
        return f'{self.in_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}'

    def _pad_tail(self, input: Tensor) -> Tensor:
        """Add the zeros at the bottom and the right that give a strided convolution the size which ``ceil_mode`` gives a pooling."""
        tail = [
            max(0, (pooled_size(size, kernel, stride, padding, self.ceil_mode) - 1) * stride + kernel - size - 2 * padding)
            for size, kernel, stride, padding in zip(input.shape[2:], *self.window, strict=True)
        ]
        return F.pad(input, (0, tail[1], 0, tail[0])) if any(tail) else input

    def _windows(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Cut ``input`` into windows ``(N, C, H_out, W_out, kernel area)``, with a mask ``(H_out, W_out, kernel area)`` of what is inside."""

        def cut(planes):
            (rows, columns), (row_step, column_step), (top, left) = self.window
            planes = F.pad(self._pad_tail(planes), (left, left, top, top))
            return planes.unfold(-2, rows, row_step).unfold(-2, columns, column_step).flatten(-2)

        return cut(input), cut(torch.ones_like(input[:1, :1]))[0, 0] > 0


def pooled_size(size: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """The number of windows along one axis, by the rule of torch's poolings.

    Args:
        size: Pixels of the input along the axis.
        kernel_size: Window edge in pixels.
        stride: Distance of windows in pixels.
        padding: Border on each side in pixels.
        ceil_mode: Whether a last window that starts inside the input or its left border counts although it ends outside.

    Returns:
        Pixels of the output along the axis.
    """
    span = size + 2 * padding - kernel_size
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - ((count - 1) * stride >= size + padding)
