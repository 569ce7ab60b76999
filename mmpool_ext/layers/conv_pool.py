"""A new strided convolution in the place of a pool."""

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from .window_pool import WindowPool2d


@MODELS.register_module()
class ConvPool2d(WindowPool2d):
    """Replace a pool by a new strided convolution and a ReLU: "All-C".

    Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR Workshop 2015, model C of Sec. 3. The convolution keeps
    the number of channels, and starts as He et al. prescribe for a ReLU.

    Args:
        in_channels: Channels of the input, which pooling keeps.
        kernel_size: Window edge in pixels, or ``(height, width)``.
        stride: Distance of windows in pixels, or a pair.
        padding: Border on each side in pixels, at most half a window.
        ceil_mode: Whether a last window that the padded input fills only in part counts, as in torch's poolings.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` as torch's poolings.
    """

    def __init__(self, in_channels: int, kernel_size=2, stride=2, padding=0, *, ceil_mode: bool = False):
        super().__init__(in_channels, kernel_size, stride, padding, ceil_mode=ceil_mode)
        self.conv = nn.Conv2d(in_channels, in_channels, *self.window)
        self.init_weights()

    def init_weights(self):
        """Draw the convolution anew."""
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out', nonlinearity='relu')
        nn.init.zeros_(self.conv.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        return F.relu(self.conv(self._pad_tail(input)))
