"""The orders that P-pooling predicts: maps to draw, means to log."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..layers import PolynomialPool2d
from .watch import WatchHook, watch


def watch_alpha(model: nn.Module):
    """Collect the alpha map of every P-pooling layer while the context is open.

    Args:
        model: Any network with :class:`PolynomialPool2d` layers.

    Returns:
        Context of ``{name of the layer: (N, C, H_out, W_out)}``, filled in the order in which the layers run; the last run of a layer counts.

    Raises:
        ValueError: If there is no such layer.
    """
    pools = {name: module for name, module in model.named_modules() if isinstance(module, PolynomialPool2d)}
    if not pools:
        raise ValueError(f'watch_alpha: model must have a PolynomialPool2d, but got {type(model).__name__} without one')
    return watch({name: pool.side_branch for name, pool in pools.items()})


class MeanAlphaHook(WatchHook):
    """Log the mean order of every P-pooling layer during training, as ``alpha/<name of the layer>``.

    Args:
        interval: Iterations between two logged numbers; use the logger's interval or a divisor of it.
        picture_interval: Iterations between two pictures, see :class:`WatchHook`. None: no pictures.
    """

    name = 'alpha'

    def watch(self, model):
        """Collect the alpha maps."""
        return watch_alpha(model)

    def scalars(self, model, outputs):
        """Average each map."""
        return {f'alpha/{name}': alpha.mean().item() for name, alpha in outputs.items()}

    def draw(self, runner, image, outputs):
        """Draw the maps of the first image."""
        return draw_alpha(image, {name: alpha[0] for name, alpha in outputs.items()})


def draw_alpha(image, maps: dict[str, Tensor], num_channels: int = 5) -> Figure:
    """Draw an image, alpha maps over it and the mean alpha of every channel (P-pooling paper, Fig. 6).

    Args:
        image: ``(H, W, 3)`` of 0 to 255.
        maps: For each layer the maps ``(C, H_out, W_out)``; brighter is a greater order.
        num_channels: Maps a layer, those that vary most over the image.

    Returns:
        One row a layer.
    """
    figure = Figure(figsize=(2.2 * (num_channels + 1) + 3, 2.3 * len(maps) + 0.3), layout='constrained')
    figure.suptitle('alpha of each window: 0 (dark) is average pooling, 20 and more (bright) is near max pooling', fontsize=11)
    grid = figure.subplots(len(maps), num_channels + 2, squeeze=False, width_ratios=[1] * (num_channels + 1) + [1.6])
    for row, (name, alpha) in zip(grid, maps.items(), strict=True):
        alpha = alpha.float().cpu()
        row[0].imshow(image)
        row[0].set_ylabel(name, fontsize=8)
        varied = torch.argsort(alpha.flatten(1).std(1), descending=True)[:num_channels].tolist()
        for axes, channel in zip(row[1:-1], varied, strict=False):
            shown = axes.imshow(alpha[channel], cmap='gray')
            axes.set_title(f'channel {channel}', fontsize=9)
            figure.colorbar(shown, ax=axes, shrink=0.7)
        for axes in row[:-1]:
            axes.set(xticks=[], yticks=[])
        for axes in row[1 + len(varied) : -1]:
            axes.set_axis_off()
        row[-1].plot(alpha.mean((1, 2)), '.', markersize=3)
        row[-1].set(xlabel='channel', ylabel='mean alpha', ylim=(0, None))
    return figure
