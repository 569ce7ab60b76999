"""Lp pooling: the norm of a window, of a fixed or a learnt order."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..ops.window import wide
from .window_pool import WindowPool2d


@MODELS.register_module()
class LpPool2d(WindowPool2d):
    """Take the p-norm of each window.

    ``y = sum(|x| ** p) ** (1 / p)``: Eq. 1 of the supplement of Wei et al. (CVPR 2019), who compare it with P-pooling. The gradients that
    the supplement prints in its Eq. 2 are wrong; here ``dy/dx = (x / y) ** (p - 1)`` and
    ``dy/dp = y (sum(x ** p ln x) / (p S) - ln(S) / p ** 2)`` with ``S = sum(x ** p)``. So nothing is undefined at p = 1 (every pixel gets 1,
    not the mean's 1/N) and p -> inf is max pooling. Unlike torch's LPPool2d, large orders do not overflow and padding exists.

    Args:
        in_channels: Channels of the input, which pooling keeps.
        kernel_size: Window edge in pixels, or ``(height, width)``.
        stride: Distance of windows in pixels, or a pair.
        padding: Border on each side in pixels, at most half a window.
        ceil_mode: Whether a last window that the padded input fills only in part counts, as in torch's poolings.
        norm_type: The order p, above 0; above 1 if learnt. Below 1 the gradient at an input of 0 is infinite.
        learnable: Whether each channel learns its order, as ``p = 1 + softplus(start + raw_norm)`` after Gulcehre et al. (ECML 2014). The start
            is a constant and ``raw_norm`` begins at 0, so that weight decay pulls p back to ``norm_type``.
        mean: Whether the sum is divided by the window's pixels, as in Gulcehre et al.; p = 1 then is average pooling.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` as torch's poolings.

    Raises:
        ValueError: If ``norm_type`` is not above 0, or not above 1 with ``learnable``.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size=2,
        stride=2,
        padding=0,
        *,
        ceil_mode: bool = False,
        norm_type: float = 2.0,
        learnable: bool = False,
        mean: bool = False,
    ):
        super().__init__(in_channels, kernel_size, stride, padding, ceil_mode=ceil_mode)
        if not norm_type > learnable:
            raise ValueError(f'LpPool2d: norm_type must be above {int(learnable)} with learnable={learnable}, but got {norm_type}')
        self.initial_norm, self.learnable, self.mean = norm_type, learnable, mean
        if learnable:
            self.raw_norm = nn.Parameter(torch.zeros(in_channels))

    def init_weights(self):
        """Return a learnt order to ``norm_type``."""
        if self.learnable:
            nn.init.zeros_(self.raw_norm)

    @property
    def norm_type(self) -> float | Tensor:
        """The order p: a number, or one for each channel when learnt."""
        if not self.learnable:
            return self.initial_norm
        start = math.log(math.expm1(self.initial_norm - 1))
        return 1 + F.softplus(start + wide(self.raw_norm))

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        windows = self._windows()
        features = wide(input)
        cells = windows.cells(features.abs())  # (K, N, C, H_out, W_out)
        norm = cast(Tensor, self.norm_type)[:, None, None] if self.learnable else self.initial_norm
        # y is linear in x, so each window may be divided by its largest value, which then needs no gradient
        largest = cells.detach().amax(0)
        empty = largest == 0
        ratio = (cells / largest.masked_fill(empty, 1)).masked_fill(empty, 1)
        total = (ratio**norm).sum(0)
        if self.mean:
            total = total / windows.valid(features).sum(0)
        return (largest * total ** (1 / norm)).to(input.dtype)
