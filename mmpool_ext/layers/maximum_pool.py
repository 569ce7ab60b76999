"""Max pooling with the constructor that every pooling layer here has."""

from mmengine.registry import MODELS
from torch import Tensor

from .window_pool import WindowPool2d


@MODELS.register_module()
class MaximumPool2d(WindowPool2d):
    """Largest value of each window: the limit of P-pooling for large orders.

    Args:
        in_channels: See :class:`WindowPool2d`, as for the other arguments.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` as torch's poolings.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        return self._largest(input)
