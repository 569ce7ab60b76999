"""P-pooling: an order between average and max pooling, predicted for every window."""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..ops import polynomial_pool2d
from .window_pool import WindowPool2d


@MODELS.register_module()
class PolynomialPool2d(WindowPool2d):
    """Pool by powers whose order ``alpha`` a depth-wise side branch predicts for each window and channel.

    ``y = sum(x ** (alpha + 1)) / sum(x ** alpha)``: Eq. 1 of Wei et al., "Building Detail-Sensitive Semantic Segmentation Networks with
    Polynomial Pooling", CVPR 2019; see :func:`mmpool_ext.ops.polynomial_pool2d`. Order 0 is average pooling, a large order max pooling.
    The side branch (Fig. 1) is a depth-wise convolution with the pool's own window, a PReLU and a depth-wise 1x1, clipped to
    ``alpha_range``. It starts at ``initial_alpha``, so that a pre-trained network starts near max pooling: its convolutions start as
    Caffe's Gaussian of 0.01, which the paper leaves open. Train it with three times the learning rate (Sec. 4.1):
    ``paramwise_cfg=dict(custom_keys={'side_branch': dict(lr_mult=3)})``. A forward hook on ``side_branch`` sees the alpha map.

    Args:
        in_channels: See :class:`WindowPool2d`, as for ``kernel_size``, ``stride``, ``padding`` and ``ceil_mode``.
        alpha_range: Smallest and largest order, ``0 <= low < high``: the paper's ``(0, C]``. An order of 0 itself is safe here.
        initial_alpha: The order at the start, within ``alpha_range``.
        input_scale: Factor on the side branch's input, which speeds up its training.
        detach_side_input: Whether the side branch's gradient stays out of the network before the pool, as in the authors' last code.
        shift_negative: Whether negative inputs are shifted to 0 and back (Eq. 2), by the smallest value of each sample and channel, which
            counts as a constant. The paper takes one minimum of ``X``; so one image never changes another. A no-op after a ReLU.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` as torch's poolings.

    Raises:
        ValueError: If ``alpha_range`` is empty, inverted or negative, ``initial_alpha`` is outside it, or ``input_scale`` is not positive;
            when called, if the input has negative values and ``shift_negative`` is off (this check waits for the device).

    Example:
        >>> import torch
        >>> pool = PolynomialPool2d(in_channels=1, kernel_size=2, stride=2)
        >>> pool(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).round(decimals=2)  # near the max, 4
        tensor([[[[4.]]]], grad_fn=<RoundBackward1>)
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size=2,
        stride=2,
        padding=0,
        ceil_mode: bool = False,
        alpha_range: tuple[float, float] = (0.0, 35.0),
        initial_alpha: float = 20.0,
        input_scale: float = 100.0,
        detach_side_input: bool = False,
        shift_negative: bool = True,
    ):
        super().__init__(in_channels, kernel_size, stride, padding, ceil_mode)
        low, high = alpha_range
        if not 0 <= low < high:
            raise ValueError(f'PolynomialPool2d: alpha_range must be (low, high) with 0 <= low < high, but got {alpha_range}')
        if not low <= initial_alpha <= high:
            raise ValueError(f'PolynomialPool2d: initial_alpha must be within alpha_range {alpha_range}, but got {initial_alpha}')
        if not input_scale > 0:
            raise ValueError(f'PolynomialPool2d: input_scale must be positive, but got {input_scale}')
        self.initial_alpha, self.input_scale = initial_alpha, input_scale
        self.detach_side_input, self.shift_negative = detach_side_input, shift_negative
        self.side_branch = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, *self.window, groups=in_channels, bias=False),
            nn.PReLU(in_channels),
            nn.Conv2d(in_channels, in_channels, 1, groups=in_channels),
            nn.Hardtanh(low, high),
        )
        self.init_weights()

    def init_weights(self):
        """Return the side branch to its initial state."""
        window, prelu, point, _ = self.side_branch
        nn.init.normal_(window.weight, std=0.01)
        nn.init.constant_(prelu.weight, 0.25)
        nn.init.normal_(point.weight, std=0.01)
        nn.init.constant_(point.bias, self.initial_alpha)

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        if not self.shift_negative and (input < 0).any():
            raise ValueError(
                f'PolynomialPool2d: input must not be negative with shift_negative=False, but got a smallest value of {input.min().item():.4g}'
            )
        side = input.detach() if self.detach_side_input else input
        # 100 times a half-precision activation overflows, so the side branch keeps the precision of its weights under autocast
        with torch.autocast(input.device.type, enabled=False):
            alpha = self.side_branch(self._pad_tail(side.to(self.side_branch[0].weight.dtype) * self.input_scale))
        if not self.shift_negative:
            return polynomial_pool2d(input, alpha, *self.window, self.ceil_mode)
        shift = input.detach().amin((2, 3), keepdim=True).clamp(max=0)
        return polynomial_pool2d(input - shift, alpha, *self.window, self.ceil_mode) + shift
