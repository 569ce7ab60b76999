"""Max pooling, average pooling and strided convolution in the constructor shape of the others."""

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from .window_pool import WindowPool2d


@MODELS.register_module()
class StandardPool2d(WindowPool2d):
    """Take the largest value of each window, or the mean of what lies inside the input.

    Args:
        in_channels: See :class:`WindowPool2d`, as for ``kernel_size``, ``stride``, ``padding`` and ``ceil_mode``.
        mode: ``'max'`` or ``'average'``. Unlike torch's default, padding takes no weight in the mean.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` as torch's poolings.

    Raises:
        ValueError: If ``mode`` is neither.
    """

    def __init__(self, in_channels: int, kernel_size=2, stride=2, padding=0, ceil_mode: bool = False, mode: str = 'max'):
        super().__init__(in_channels, kernel_size, stride, padding, ceil_mode)
        if mode not in ('max', 'average'):
            raise ValueError(f"StandardPool2d: mode must be 'max' or 'average', but got {mode!r}")
        self.mode = mode

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        if self.mode == 'max':
            return F.max_pool2d(input, *self.window, ceil_mode=self.ceil_mode)
        return F.avg_pool2d(input, *self.window, ceil_mode=self.ceil_mode, count_include_pad=False)


@MODELS.register_module()
class ConvPool2d(WindowPool2d):
    """Replace a pool by a new strided convolution and a ReLU: "All-C".

    Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR Workshop 2015, model C of Sec. 3. The convolution keeps
    the number of channels, and starts as He et al. prescribe for a ReLU.

    Args:
        in_channels: See :class:`WindowPool2d`, as for the other arguments.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` as torch's poolings.
    """

    def __init__(self, in_channels: int, kernel_size=2, stride=2, padding=0, ceil_mode: bool = False):
        super().__init__(in_channels, kernel_size, stride, padding, ceil_mode)
        self.conv = nn.Conv2d(in_channels, in_channels, *self.window)
        self.init_weights()

    def init_weights(self):
        """Draw the convolution anew."""
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', nonlinearity='relu')
        nn.init.zeros_(self.conv.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        return F.relu(self.conv(self._pad_tail(input)))
