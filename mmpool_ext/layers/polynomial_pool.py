"""P-pooling: an order between average and max pooling, predicted for every window."""

from typing import cast

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..ops import polynomial_pool2d
from ..ops._extension import check_backend
from ..ops.tracing import is_symbolic, traceable
from ..ops.window import wide
from .window_pool import WindowPool2d, without_autocast


class SideBranch(nn.Sequential):
    """Predict the orders: ``clip(initial_alpha + conv1x1(PReLU(conv(input))))``, both convolutions depth-wise (Fig. 1).

    The start is a constant and the last bias begins at 0, so weight decay pulls the order back to its start and not to average pooling.
    It computes in the precision of its input, also if its weights are in half precision, which has too few digits for an exponent.

    Args:
        in_channels: Channels of the input.
        window: ``(kernel_size, stride, padding)`` of the pool.
        initial_alpha: The order where the convolutions add nothing.
        alpha_range: Smallest and largest order.
    """

    def __init__(self, in_channels: int, window: tuple, initial_alpha: float, alpha_range: tuple[float, float]):
        super().__init__(
            nn.Conv2d(in_channels, in_channels, *window, groups=in_channels, bias=False),
            nn.PReLU(in_channels),
            nn.Conv2d(in_channels, in_channels, 1, groups=in_channels),
        )
        self.initial_alpha, self.alpha_range = initial_alpha, alpha_range

    def init_weights(self):
        """Return to the initial state."""
        window, prelu, point = self
        nn.init.normal_(window.weight, std=0.01)
        nn.init.constant_(prelu.weight, 0.25)
        # 0.01 for the paper's 20 and less nearer to the lower end of the range, so that windows start inside of it
        nn.init.normal_(point.weight, std=0.01 * min(1, (self.initial_alpha - self.alpha_range[0]) / 20))
        nn.init.zeros_(point.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Predict the orders ``(N, C, H_out, W_out)`` of the windows of ``input`` ``(N, C, H, W)``."""
        window, prelu, point = self
        hidden = F.conv2d(input, window.weight.to(input.dtype), None, window.stride, window.padding, groups=window.groups)
        hidden = F.prelu(hidden, cast(Tensor, prelu.weight).to(input.dtype))
        added = F.conv2d(hidden, point.weight.to(input.dtype), point.bias.to(input.dtype), groups=point.groups)
        return (self.initial_alpha + added).clamp(*self.alpha_range)

    def extra_repr(self) -> str:
        """Show start and range in ``print(model)``."""
        return f'initial_alpha={self.initial_alpha}, alpha_range={self.alpha_range}'


@MODELS.register_module()
class PolynomialPool2d(WindowPool2d):
    """Pool by powers whose order ``alpha`` a depth-wise side branch predicts for each window and channel.

    ``y = sum(x ** (alpha + 1)) / sum(x ** alpha)``: Eq. 1 of Wei et al., "Building Detail-Sensitive Semantic Segmentation Networks with
    Polynomial Pooling", CVPR 2019; see :func:`mmpool_ext.ops.polynomial_pool2d`. Order 0 is average pooling, a large order max pooling.
    :class:`SideBranch` starts at ``initial_alpha``, so that a network pre-trained with max pooling starts near it: 0.3 to 0.6% off on random
    ReLU maps. Its convolutions start as Caffe's Gaussian of 0.01, which the paper leaves open. Train it with three times the learning rate
    (Sec. 4.1): ``paramwise_cfg=dict(custom_keys={'side_branch': dict(lr_mult=3)})``; the authors have no weight decay on the PReLU and the last
    bias, see ``configs/ppool/_base_/side_branches.py``. A forward hook on ``side_branch`` sees the alpha map.

    Args:
        in_channels: Channels of the input, which pooling keeps.
        kernel_size: Window edge in pixels, or ``(height, width)``.
        stride: Distance of windows in pixels, or a pair.
        padding: Border on each side in pixels, at most half a window.
        ceil_mode: Whether a last window that the padded input fills only in part counts, as in torch's poolings.
        alpha_range: Smallest and largest order, ``0 <= low < high``: the paper's ``(0, C]``. An order of 0 itself is safe here.
        initial_alpha: The order at the start, strictly inside ``alpha_range``: on its edge half of all windows would be clipped, without a
            gradient. 20 is the paper's, in the place of max pooling; 0.01 is nearest to average pooling.
        input_scale: Factor on the side branch's input, which speeds up its training.
        detach_side_input: Whether the side branch's gradient stays out of the network before the pool, as in the authors' last code.
        shift_negative: Whether negative inputs are shifted to 0 and back (Eq. 2), by the smallest value of each sample and channel, which
            counts as a constant. The paper takes one minimum of ``X``; so one image never changes another. The shift is a thousandth of that
            value and 1e-6 larger, after a ReLU too: by the formula a zero has no weight at any ``alpha > 0`` and a whole one at 0, so small
            orders would not be near the average.
        backend: See :func:`mmpool_ext.ops.polynomial_pool2d`.

    Shape:
        ``(N, C, H, W)`` to ``(N, C, H_out, W_out)`` as torch's poolings.

    Raises:
        ValueError: If ``alpha_range`` is empty, inverted or negative, ``initial_alpha`` is not inside it, or ``input_scale`` is not positive;
            when called, if the input has negative values and ``shift_negative`` is off (this check waits for the
            device, and is left out of graphs that are compiled or exported).

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
        *,
        ceil_mode: bool = False,
        alpha_range: tuple[float, float] = (0.0, 35.0),
        initial_alpha: float = 20.0,
        input_scale: float = 100.0,
        detach_side_input: bool = False,
        shift_negative: bool = True,
        backend: str = 'auto',
    ):
        super().__init__(in_channels, kernel_size, stride, padding, ceil_mode=ceil_mode)
        low, high = alpha_range
        if not 0 <= low < high:
            raise ValueError(f'PolynomialPool2d: alpha_range must be (low, high) with 0 <= low < high, but got {alpha_range}')
        if not low < initial_alpha < high:
            raise ValueError(f'PolynomialPool2d: initial_alpha must be strictly inside alpha_range {alpha_range}, but got {initial_alpha}')
        if not input_scale > 0:
            raise ValueError(f'PolynomialPool2d: input_scale must be positive, but got {input_scale}')
        check_backend('PolynomialPool2d', backend)
        self.input_scale, self.detach_side_input, self.shift_negative = input_scale, detach_side_input, shift_negative
        self.backend = backend
        self.side_branch = SideBranch(in_channels, self.window, initial_alpha, (low, high))
        self.init_weights()

    def init_weights(self):
        """Return the side branch to its initial state."""
        self.side_branch.init_weights()

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        if not self.shift_negative:
            refuse_negative(input)
        side = input.detach() if self.detach_side_input else input
        with without_autocast(input):  # in float32 also beside a half: 100 times a half overflows
            alpha = self.side_branch(self._pad_tail(wide(side) * self.input_scale))
        if not self.shift_negative:
            return polynomial_pool2d(input, alpha, *self.window, ceil_mode=self.ceil_mode, backend=self.backend)
        shift = input.detach().amin((2, 3), keepdim=True).clamp(max=0) * 1.001 - 1e-6
        return polynomial_pool2d(input - shift, alpha, *self.window, ceil_mode=self.ceil_mode, backend=self.backend) + shift


@traceable
def refuse_negative(input: Tensor):
    """Raise if there is a negative value. A graph that is made of the code, and the meta device, have no values to look at: no check there."""
    if not is_symbolic() and not input.is_meta and (input < 0).any():
        raise ValueError(
            f'PolynomialPool2d: input must not be negative with shift_negative=False, but got a smallest value of {input.min().item():.4g}'
        )
