"""SoftPool: each window weighted by the softmax of its own values."""

from mmengine.registry import MODELS
from torch import Tensor

from ..ops import soft_pool2d
from .window_pool import WindowPool2d


@MODELS.register_module()
class SoftPool2d(WindowPool2d):
    """Average each window with weights ``softmax(x)``.

    Stergiou et al., "Refining activation downsampling with SoftPool", ICCV 2021: :func:`mmpool_ext.ops.soft_pool2d`, LIP with the input as logit.
    Unlike the authors' kernel the gradient runs through the weights too. No parameters.

    Args:
        in_channels: Channels of the input, which pooling keeps.
        kernel_size: Window edge in pixels, or ``(height, width)``.
        stride: Distance of windows in pixels, or a pair.
        padding: Border on each side in pixels, at most half a window.
        ceil_mode: Whether a last window that the padded input fills only in part counts, as in torch's poolings.
        dilation: Distance of the pixels of a window, or a pair.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` as torch's poolings.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        return soft_pool2d(input, *self.window, dilation=self.dilation, ceil_mode=self.ceil_mode)
