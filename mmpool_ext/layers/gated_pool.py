"""Gated pooling: a learnt mix of max and average pooling."""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from .window_pool import WindowPool2d


@MODELS.register_module()
class GatedPool2d(WindowPool2d):
    """Mix max and average pooling by a gate that looks at the window.

    ``y = a max(x) + (1 - a) mean(x)``, ``a = sigmoid(sum(w x))``: Lee et al., "Generalizing Pooling Functions in Convolutional Neural
    Networks", AISTATS 2016, Sec. 3.2, "one gating mask per layer": ``w`` is one window of weights shared by all channels, without a bias,
    and starts as a standard Gaussian. Padding takes no weight in the mean.

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
        self.mask = nn.Parameter(torch.empty(1, 1, *self.kernel_size))
        self.init_weights()

    def init_weights(self):
        """Draw the mask anew."""
        nn.init.normal_(self.mask)

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        mask = self.mask.expand(self.in_channels, -1, -1, -1)
        gate = F.conv2d(self._pad_tail(input), mask, None, self.stride, self.padding, groups=self.in_channels).sigmoid()
        mean = self._mean(input)
        return mean + gate * (self._largest(input) - mean)
