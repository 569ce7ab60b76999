"""Which pixels LIP keeps: maps of importance to draw, and one number a layer to log."""

import torch
from matplotlib.figure import Figure
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from ..layers import LIPPool2d
from ..ops import lip_pool2d
from ..ops.window import Window
from .watch import WatchHook, watch


def watch_importance(model: nn.Module):
    """Collect the logit of every LIP while the context is open; a pixel's weight in a window is ``exp(logit)``.

    Args:
        model: Any network with :class:`LIPPool2d` layers.

    Returns:
        Context of ``{name of the layer: (N, C, H, W)}``, filled in the order in which the layers run; the last run of a layer counts.

    Raises:
        ValueError: If there is no such layer.
    """
    pools = {name: module for name, module in model.named_modules() if isinstance(module, LIPPool2d)}
    if not pools:
        raise ValueError(f'watch_importance: model must have a LIPPool2d, but got {type(model).__name__} without one')
    return watch({name: pool.logit for name, pool in pools.items()})


def window_entropy(pool: nn.Module, logit: Tensor) -> Tensor:
    """Compute the entropy of the weights in each window, divided by that of equal weights.

    Args:
        pool: A :class:`LIPPool2d`, whose window counts.
        logit: Its logit ``(N, C, H, W)``.

    Returns:
        ``(N, C, H_out, W_out)``: 1 where the window is averaged, 0 where a single pixel has all the weight.

    Example:
        >>> from mmpool_ext.layers import LIPPool2d
        >>> window_entropy(LIPPool2d(1, 2, 2, 0), torch.tensor([[[[0.0, 0.0, 0.0, 99.0], [0.0, 0.0, 0.0, 0.0]]]]))
        tensor([[[[1., 0.]]]])
    """
    logit = logit.float()
    window = Window(*map(to_2tuple, (pool.kernel_size, pool.stride, pool.padding, pool.dilation)), pool.ceil_mode)
    normaliser = torch.logsumexp(window.cells(logit, -torch.inf), dim=0)
    mean = lip_pool2d(logit, logit, *window[:3], dilation=window.dilation, ceil_mode=window.ceil_mode)
    equal = window.valid(logit).sum(0).log()
    return torch.where(equal > 0, (normaliser - mean) / equal, 1.0)  # a window of one pixel is its own average


class LIPEntropyHook(WatchHook):
    """Log how far every LIP is from average pooling during training, as ``lip_entropy/<name of the layer>``.

    The number is the mean of :func:`window_entropy` over the first image of the batch. A new LIP has 1, which is average pooling. It falls as the
    LIP learns to prefer pixels, and 0 means that a single pixel of each window is kept.

    Args:
        interval: Iterations between two logged numbers; use the logger's interval or a divisor of it.
        picture_interval: Iterations between two pictures, see :class:`WatchHook`. None: no pictures.
    """

    name = 'lip_importance'

    def watch(self, model):
        """Collect the logits."""
        return watch_importance(model)

    def scalars(self, model, outputs):
        """Average the entropy of each LIP's windows."""
        return {f'lip_entropy/{name}': window_entropy(model.get_submodule(name), logit[:1]).mean().item() for name, logit in outputs.items()}

    def draw(self, runner, image, outputs):
        """Draw the logits of the first image."""
        return draw_importance(image, {name: logit[0] for name, logit in outputs.items()})


def draw_importance(image, maps: dict[str, Tensor], num_channels: int = 5, figure=None) -> Figure:
    """Draw an image and the importance of its pixels to every LIP.

    Args:
        image: ``(H, W, 3)`` of 0 to 255.
        maps: For each LIP the logits ``(C, h, w)``: natural logarithms of weights. Only differences between neighbours matter: where a map is
            flat, the LIP is average pooling.
        num_channels: Maps a LIP beside the channels' mean, those that vary most over the image.
        figure: Figure or sub-figure to draw into, or None for a new one.

    Returns:
        One row a LIP: the image, the mean of all channels, single channels; brighter pixels weigh more.
    """
    columns = num_channels + 2
    figure = figure or Figure(figsize=(2.2 * columns, 2.2 * len(maps)), layout='constrained')
    grid = figure.subplots(len(maps), columns, squeeze=False)
    for row, (name, logit) in zip(grid, maps.items(), strict=True):
        logit = logit.float().cpu()
        varied = torch.argsort(logit.flatten(1).std(1), descending=True)[:num_channels].tolist()
        row[0].imshow(image)
        row[0].set_ylabel(name, fontsize=8)
        panels = {f'mean of {len(logit)} channels': logit.mean(0), **{f'channel {channel}': logit[channel] for channel in varied}}
        for axes, (title, panel) in zip(row[1:], panels.items(), strict=False):
            figure.colorbar(axes.imshow(panel, cmap='gray'), ax=axes, shrink=0.7).ax.tick_params(labelsize=7)
            axes.set_title(title, fontsize=9)
        for axes in row[1 + len(panels) :]:
            axes.set_axis_off()
        for axes in row:
            axes.set(xticks=[], yticks=[])
    return figure
