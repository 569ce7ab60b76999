"""Which input pixels make up a pooling window: the arithmetic and its checks, once for every op."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .tracing import traceable

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def pair(op: str, what: str, value, least: int) -> tuple[int, int]:
    """Return an argument of a window, an int or a tuple or list of two, as ``(vertical, horizontal)``.

    Raises:
        ValueError: If it is neither, or less than ``least``.
    """
    edges = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(edges) != 2 or not all(isinstance(edge, int) and edge >= least for edge in edges):
        raise ValueError(f'{op}: {what} must be an int >= {least} or a pair of them, but got {value!r}')
    return edges[0], edges[1]


class Window(NamedTuple):
    """The windows of one pooling: each attribute but the last is a ``(vertical, horizontal)`` pair, in input pixels."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool

    @classmethod
    def checked(cls, op: str, input: Tensor, kernel_size, stride, padding, dilation, ceil_mode: bool) -> 'Window':
        """Build the windows of ``op`` over ``input``.

        Returns:
            A window set in which every window holds an input pixel.

        Raises:
            TypeError: If ``input`` is no floating-point tensor.
            ValueError: If ``input`` is not ``(N, C, H, W)``, an argument is out of range, or a window does not fit.
        """
        if not isinstance(input, Tensor) or input.dtype not in DTYPES:
            raise TypeError(f'{op}: input must be a float64, float32, float16 or bfloat16 tensor, but got {getattr(input, "dtype", type(input))}')
        if input.dim() != 4 or input.shape[2] == 0 or input.shape[3] == 0:
            raise ValueError(f'{op}: input must be (N, C, H, W) with H and W >= 1, but got {tuple(input.shape)}')
        window = cls(
            pair(op, 'kernel_size', kernel_size, 1),
            pair(op, 'stride', stride, 1),
            pair(op, 'padding', padding, 0),
            pair(op, 'dilation', dilation, 1),
            bool(ceil_mode),
        )
        counts = window.output_size(*input.shape[2:])
        sides = zip(window.kernel_size, window.stride, window.padding, window.dilation, input.shape[2:], counts, strict=True)
        for kernel, step, pad, gap, size, count in sides:
            if 2 * pad > gap * (kernel - 1) + 1:
                raise ValueError(
                    f'{op}: padding must be at most half of the window, dilation * (kernel_size - 1) + 1, '
                    f'but got padding {padding}, kernel_size {kernel_size} and dilation {dilation}'
                )
            if gap * (kernel - 1) + 1 > size + 2 * pad:
                raise ValueError(
                    f'{op}: kernel_size must fit into the padded input, but got kernel_size {kernel_size} with dilation {dilation}, '
                    f'padding {padding} and input {tuple(input.shape)}'
                )
            # Only cells further apart than the image is large can step over it.
            starts = [step * i - pad for i in range(count)] if pad and size < gap else []
            if any(all(not 0 <= start + i * gap < size for i in range(kernel)) for start in starts):
                raise ValueError(
                    f'{op}: every window must hold an input pixel, but got dilation {dilation} with padding {padding} and input {tuple(input.shape)}'
                )
        return window

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Count the windows as torch's pooling does: in ``ceil_mode`` a last one counts if it starts inside the input or its leading padding."""
        (last_y, last_x), (step_y, step_x) = self._lasts(), self.stride
        return (height + last_y + step_y) // step_y, (width + last_x + step_x) // step_x

    def _lasts(self) -> list[int]:
        """Give the last place where a window may begin, counted from its place before the padding, less the edge of the input.

        So sizes and slices are sums with no branch on the size, which is a symbol where a graph is exported.
        """
        lasts = []
        for kernel, stride, pad, gap in zip(self.kernel_size, self.stride, self.padding, self.dilation, strict=True):
            extent = gap * (kernel - 1) + 1
            lasts.append(min(2 * pad - extent + stride, pad) - 1 if self.ceil_mode else 2 * pad - extent)
        return lasts

    def cells(self, input: Tensor, fill: float = 0.0) -> Tensor:
        """Gather every window's cells.

        Args:
            input: ``(..., H, W)``.
            fill: Value of the cells in the padding.

        Returns:
            ``(K, ..., H_out, W_out)``: the K cells of a window along the first axis, row by row.
        """
        return window_cells(input, self, fill)

    def valid(self, input: Tensor) -> Tensor:
        """Tell a window's input pixels from its padding: bool, ``(K, 1, 1, H_out, W_out)``."""
        return valid_cells(input, self)


@traceable
def window_cells(input: Tensor, window: Window, fill: float = 0.0) -> Tensor:
    """Do the work of :meth:`Window.cells`."""
    (step_y, step_x), (gap_y, gap_x) = window.stride, window.dilation
    rows, columns = (size + last + 1 for size, last in zip(input.shape[-2:], window._lasts(), strict=True))
    end_y, end_x = (pad + (stride - 1 if window.ceil_mode else 0) for pad, stride in zip(window.padding, window.stride, strict=True))
    input = F.pad(input, (window.padding[1], end_x, window.padding[0], end_y), value=fill)
    return torch.stack(
        [
            input[..., y : y + rows : step_y, x : x + columns : step_x]
            for y in range(0, gap_y * window.kernel_size[0], gap_y)
            for x in range(0, gap_x * window.kernel_size[1], gap_x)
        ]
    )


@traceable
def valid_cells(input: Tensor, window: Window) -> Tensor:
    """Do the work of :meth:`Window.valid`."""
    return window.cells(torch.ones(1, 1, *input.shape[2:], device=input.device)) > 0


def check_weight(op: str, what: str, weight: Tensor, input: Tensor) -> None:
    """Check what decides the weights (logit, importance, alpha): a tensor on ``input``'s device, in its dtype or in float32 beside a half."""
    if not isinstance(weight, Tensor) or weight.device != input.device:
        raise ValueError(f'{op}: {what} must be a tensor on the device of input, but got {getattr(weight, "device", weight)} and {input.device}')
    half = input.dtype in (torch.float16, torch.bfloat16)
    if weight.dtype != input.dtype and not (half and weight.dtype == torch.float32):
        raise TypeError(
            f'{op}: {what} must have the dtype of input, or float32 with a float16 or bfloat16 input, but got {weight.dtype} and {input.dtype}'
        )


def check_shape(op: str, what: str, weight: Tensor, input: Tensor) -> None:
    """Check a weight map that lies on the input pixels."""
    if weight.shape != input.shape:
        raise ValueError(f'{op}: {what} must have the shape of input, but got {what} {tuple(weight.shape)} and input {tuple(input.shape)}')


@traceable
def wide(input: Tensor) -> Tensor:
    """Bring a half to float32, in which all arithmetic runs; float32 and float64 stay as they are."""
    return input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
