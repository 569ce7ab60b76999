"""Average pooling with the constructor that every pooling layer here has."""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.utils import _pair

from ..ops import lip_pool2d


@MODELS.register_module()
class AveragePool2d(nn.Module):
    """Mean of each window's own pixels: LIP with a constant logit, the baseline of the LIP paper's Fig. 4c.

    Args:
        in_channels: Accepted by every pooling layer; an average has no parameters.
        kernel_size: Window edge in pixels.
        stride: Step of the window in pixels.
        padding: Rim in pixels; it is not counted.
        ceil_mode: Round the output size up instead of down.
        dilation: Step between the pixels of a window.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int | tuple[int, int] = 2,
        stride: int | tuple[int, int] = 2,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
        dilation: int | tuple[int, int] = 1,
    ):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.dilation = ceil_mode, dilation

    def forward(self, input):
        """Pool ``input`` ``(N, C, H, W)``."""
        if _pair(self.dilation) == (1, 1):
            return F.avg_pool2d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, count_include_pad=False)
        return lip_pool2d(input, torch.zeros_like(input), self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self):
        """The window, for ``print``."""
        return f'kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, ceil_mode={self.ceil_mode}'
