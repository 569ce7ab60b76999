"""Detail-preserving pooling: pixels that differ from the rest of their window weigh more."""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..ops.tracing import traceable
from ..ops.window import Window, wide
from .window_pool import WindowPool2d, without_autocast


@MODELS.register_module()
class DetailPreservingPool2d(WindowPool2d):
    """Average each window by how far its pixels lie from the window's smooth value.

    ``y = sum(F x) / sum(F)``, ``F = alpha + (d ** 2 + 1e-3) ** (lambda / 2)``, ``d = x - x_smooth``: Saeedan et al., "Detail-Preserving
    Pooling in Deep Networks", CVPR 2018, Eq. 4-9. Alpha and lambda are learnt per channel as exponentials, so that they stay positive,
    from logarithms drawn evenly from ``+-1 / sqrt(C)`` as in the authors' code, which has no weight decay on them:
    ``paramwise_cfg=dict(custom_keys={'log_alpha': dict(decay_mult=0), 'log_lambda': dict(decay_mult=0)})``. The paper's windows are 2x2 with
    stride 2; here the formula holds for any window; each pixel is compared with the smooth value of its window. Computed in
    float32 at least, since squares of halves overflow.

    Args:
        in_channels: Channels of the input, which pooling keeps.
        kernel_size: Window edge in pixels, or ``(height, width)``.
        stride: Distance of windows in pixels, or a pair.
        padding: Border on each side in pixels, at most half a window.
        ceil_mode: Whether a last window that the padded input fills only in part counts, as in torch's poolings.
        symmetric: Whether pixels below the smooth value weigh as much as those above it; otherwise ``d = max(0, x - x_smooth)``.
        lite: Whether the smooth value is the window's mean; otherwise it comes from a convolution in each channel, with bias and the stride of
            the windows, as in the authors' code: 3x3 with a border of 1 for windows of 2x2, and the window itself where its edge is odd.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` as torch's poolings.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size=2,
        stride=2,
        padding=0,
        *,
        ceil_mode: bool = False,
        symmetric: bool = True,
        lite: bool = True,
    ):
        super().__init__(in_channels, kernel_size, stride, padding, ceil_mode=ceil_mode)
        self.symmetric, self.lite = symmetric, lite
        self.log_alpha = nn.Parameter(torch.empty(in_channels))
        self.log_lambda = nn.Parameter(torch.empty(in_channels))
        if not lite:
            edges = self.kernel_size[0] | 1, self.kernel_size[1] | 1
            self.smooth = nn.Conv2d(in_channels, in_channels, edges, self.stride, groups=in_channels)
        self.init_weights()

    def init_weights(self):
        """Return the parameters to their initial state; the convolution's is PyTorch's own, as in the authors' code."""
        bound = self.in_channels**-0.5
        nn.init.uniform_(self.log_alpha, -bound, bound)
        nn.init.uniform_(self.log_lambda, -bound, bound)
        if not self.lite:
            self.smooth.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        windows, features = self._windows(), wide(input)
        cells, valid = windows.cells(features), windows.valid(features)  # (K, N, C, H_out, W_out) and (K, 1, 1, H_out, W_out)
        # Padding is 0 and takes no part in the mean
        smooth = cells.sum(0) / valid.sum(0) if self.lite else smoothed(features, self.smooth.weight, self.smooth.bias, windows)
        difference = cells - smooth
        if not self.symmetric:
            difference = difference.clamp(min=0)
        log_alpha, log_lambda = (parameter.to(features.dtype)[:, None, None] for parameter in (self.log_alpha, self.log_lambda))
        weight = (log_alpha.exp() + (difference.square() + 1e-3) ** (log_lambda.exp() / 2)) * valid
        return ((weight * cells).sum(0) / weight.sum(0)).to(input.dtype)


@traceable
def smoothed(features: Tensor, weight: Tensor, bias: Tensor, window: Window) -> Tensor:
    """Convolve each window to one value: the first one starts where the pool's does or, if that edge is even, a pixel before."""
    border: list[int] = []
    sides = zip(
        window.output_size(*features.shape[2:]), features.shape[2:], weight.shape[2:], window.kernel_size, window.stride, window.padding, strict=True
    )
    for count, edge, kernel, size, stride, padding in sides:
        before = padding + kernel - size
        border = [before, (count - 1) * stride + kernel - before - edge, *border]
    weight, bias = weight.to(features.dtype), bias.to(features.dtype)
    with without_autocast(features):
        return F.conv2d(F.pad(features, border), weight, bias, window.stride, groups=len(weight))
