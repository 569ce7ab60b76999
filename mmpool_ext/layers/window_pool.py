"""What every pooling layer here shares: one constructor shape, so that a config may put one in place of another."""

import torch.nn.functional as F
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from ..ops.window import Window


class WindowPool2d(nn.Module):
    """The base of the pooling layers: their arguments and the arithmetic of their windows.

    Args:
        in_channels: Channels of the input, which pooling keeps.
        kernel_size: Window edge in pixels, or ``(height, width)``.
        stride: Distance of windows in pixels, or a pair.
        padding: Border on each side in pixels, at most half a window. It takes no weight in any mean.
        ceil_mode: Whether a last window that the padded input fills only in part counts, as in torch's poolings.

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
            raise ValueError(f'{name}: padding must be between 0 and half of kernel_size, but got {padding} and {kernel_size}')

    @property
    def window(self) -> tuple:
        """``(kernel_size, stride, padding)``: the arguments of torch's poolings and convolutions in their order."""
        return self.kernel_size, self.stride, self.padding

    def extra_repr(self) -> str:
        """Show the window in ``print(model)``."""
        return f'{self.in_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}'

    def _windows(self) -> Window:
        return Window(*self.window, (1, 1), self.ceil_mode)

    def _pad_tail(self, input: Tensor) -> Tensor:
        """Add the zeros at the bottom and the right that give a strided convolution the size which ``ceil_mode`` gives a pooling."""
        size = self._windows().output_size(*input.shape[2:])
        tail = [
            max(0, (count - 1) * stride + kernel - edge - 2 * padding)
            for count, edge, kernel, stride, padding in zip(size, input.shape[2:], *self.window, strict=True)
        ]
        return F.pad(input, (0, tail[1], 0, tail[0])) if any(tail) else input
