"""Average pooling with the constructor that every pooling layer here has."""

from mmengine.registry import MODELS
from torch import Tensor

from .window_pool import WindowPool2d


@MODELS.register_module()
class AveragePool2d(WindowPool2d):
    """Mean of each window; padding does not count. LIP with a constant logit, the baseline of the LIP paper's Fig. 4c.

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
        return self._mean(input)
