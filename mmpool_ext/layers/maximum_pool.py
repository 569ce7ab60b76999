"""Max pooling with the constructor that every pooling layer here has."""

from mmengine.registry import MODELS
from torch import Tensor

from .window_pool import WindowPool2d


@MODELS.register_module()
class MaximumPool2d(WindowPool2d):
    """Largest value of each window: the limit of P-pooling for large orders.

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
        return self._largest(input)
