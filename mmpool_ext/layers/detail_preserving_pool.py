"""Detail-preserving pooling: the pixels that stand out of their window weigh more."""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .window_pool import WindowPool2d


@MODELS.register_module()
class DetailPreservingPool2d(WindowPool2d):
    """Average each window by how far its pixels lie from the window's smooth value.

    ``y = sum(F x) / sum(F)``, ``F = alpha + (d ** 2 + 1e-3) ** (lambda / 2)``, ``d = x - x_smooth``: Saeedan et al., "Detail-Preserving
    Pooling in Deep Networks", CVPR 2018, Eq. 4-9. Alpha and lambda are learnt per channel as exponentials, so that they stay positive,
    from logarithms drawn evenly from ``+-1 / sqrt(C)`` as in the authors' code. The paper's windows are 2x2 with stride 2; here the formula
    holds for any window, each pixel being weighed against the smooth value of the window at hand.

    Args:
        in_channels: See :class:`WindowPool2d`, as for ``kernel_size``, ``stride``, ``padding`` and ``ceil_mode``.
        symmetric: Whether pixels below the smooth value weigh as much as those above it; otherwise ``d = max(0, x - x_smooth)``.
        lite: Whether the smooth value is the window's mean; otherwise a window of weights learnt per channel, which starts at the mean.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` as torch's poolings.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size=2,
        stride=2,
        padding=0,
        ceil_mode: bool = False,
        symmetric: bool = True,
        lite: bool = True,
    ):
        super().__init__(in_channels, kernel_size, stride, padding, ceil_mode)
        self.symmetric, self.lite = symmetric, lite
        self.log_alpha = nn.Parameter(torch.empty(in_channels))
        self.log_lambda = nn.Parameter(torch.empty(in_channels))
        if not lite:
            self.smooth = nn.Parameter(torch.empty(in_channels, self.kernel_size[0] * self.kernel_size[1]))
        self.init_weights()

    def init_weights(self):
        """Return the parameters to their initial state."""
        bound = self.in_channels**-0.5
        nn.init.uniform_(self.log_alpha, -bound, bound)
        nn.init.uniform_(self.log_lambda, -bound, bound)
        if not self.lite:
            nn.init.constant_(self.smooth, 1 / self.smooth.shape[1])

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        windows = self._windows()
        cells, valid = windows.cells(input), windows.valid(input)  # (K, N, C, H_out, W_out) and (K, 1, 1, H_out, W_out)
        weight = 1 / len(cells) if self.lite else self.smooth.t()[:, None, :, None, None]
        # A window over the border is scaled up to its full area: padding is 0 and takes no part
        smooth = (cells * weight).sum(0) * (len(cells) / valid.sum(0))
        difference = cells - smooth
        if not self.symmetric:
            difference = difference.clamp(min=0)
        log_alpha, log_lambda = (parameter[:, None, None] for parameter in (self.log_alpha, self.log_lambda))
        weight = (log_alpha.exp() + (difference.square() + 1e-3) ** (log_lambda.exp() / 2)) * valid
        return (weight * cells).sum(0) / weight.sum(0)
