"""Which pixels LIP keeps: the importance that each of a network's poolings gives to each pixel."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..layers import LIPPool2d
from .watch import watch


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


def draw_importance(image, maps: dict[str, Tensor], num_channels: int = 5, figure=None) -> Figure:
    """Draw an image and the importance of its pixels to every LIP.

    Args:
        image: ``(H, W, 3)`` of 0 to 255.
        maps: For each LIP the logits ``(C, h, w)``: natural logarithms of weights, which count relative to their neighbours.
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
