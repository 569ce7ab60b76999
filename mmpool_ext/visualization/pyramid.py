"""Draw what a pyramid predicts, as Figure 1 of "Specialize and Fuse", and log during training which levels it uses."""

import numpy as np
from matplotlib.colors import ListedColormap, hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..ops.pyramid import fuse_pyramid
from .watch import WatchHook, unwrapped, watch

LEVEL_COLOURS = ('#fde725', '#35b779', '#31688e', '#440154', '#8c6bb1', '#bfd3e6')  # coarsest first, as many as levels are likely
UNITY = ListedColormap(['#202020', '#f5f5f5'])


def draw_pyramid(image, semantic, unity, level, strides, palette, threshold=0.5, label=None):
    """Draw the image, each level's labels and unit-cells, the level of each pixel and what each level contributes to the fused map.

    Args:
        image: RGB image ``(H, W, 3)``, uint8.
        semantic: Label map of each level, coarsest first, integer arrays ``(h, w)``.
        unity: Unity probabilities ``(h, w)`` of every level but the finest.
        level: The level that each pixel of the finest level takes, ``(h, w)``, 0 for the coarsest.
        strides: Cell edge in pixels of each level.
        palette: Colour ``(r, g, b)`` of each class, 0 to 255.
        threshold: Cells with this unity or more are unit-cells.
        label: Ground truth ``(H, W)`` to draw beside the image, or None. Labels beyond the palette are grey.

    Returns:
        A matplotlib ``Figure``.

    Raises:
        ValueError: If the numbers of levels, unity maps and strides do not go together.

    Example:
        >>> maps = [np.zeros((1, 1), int), np.zeros((2, 2), int)]
        >>> draw_pyramid(np.zeros((8, 8, 3), 'uint8'), maps, [np.ones((1, 1))], np.zeros((2, 2), int), (8, 4), [(0, 0, 0)]).axes[0].get_title()
        'image'
    """
    if not len(semantic) == len(strides) == len(unity) + 1:
        raise ValueError(
            f'draw_pyramid: semantic and strides must have one entry a level and unity one fewer, '
            f'but got {len(semantic)}, {len(strides)} and {len(unity)}'
        )
    height, width = image.shape[:2]
    colours = np.concatenate([np.asarray(palette, np.uint8), np.full((1, 3), 128, np.uint8)])

    def paint(labels):
        return colours[np.where((labels >= 0) & (labels < len(palette)), labels, len(palette))]

    num_levels = len(strides)
    figure = Figure(figsize=(2.6 * (num_levels + 1), 2.8 * 3 * height / width + 0.8), layout='constrained')
    grid = figure.subplots(3, num_levels + 1)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])

    def show(axes, pixels, title, stride=None, **options):
        extent = (0, width, height, 0) if stride is None else (0, pixels.shape[1] * stride, pixels.shape[0] * stride, 0)
        axes.imshow(pixels, extent=extent, interpolation='nearest', **options)
        axes.set(title=title, xlim=(0, width), ylim=(height, 0))

    taken = [np.repeat(np.repeat(labels, s // strides[-1], 0), s // strides[-1], 1) for labels, s in zip(semantic, strides, strict=True)]
    taken = [labels[: level.shape[0], : level.shape[1]] for labels in taken]
    fused = np.select([level == index for index in range(num_levels)], taken)
    show(grid[0, 0], image, 'image')
    show(grid[1, 0], paint(fused), 'fused', strides[-1])
    levels = ListedColormap(LEVEL_COLOURS[:num_levels])
    show(grid[2, 0], level, 'level taken', strides[-1], cmap=levels, vmin=-0.5, vmax=num_levels - 0.5)
    for index, stride in enumerate(strides):
        share = 100 * (level == index).mean()
        show(grid[0, index + 1], paint(semantic[index]), f'stride {stride}: labels', stride)
        part = np.dstack([paint(fused), np.where(level == index, 255, 0).astype(np.uint8)])
        show(grid[1, index + 1], part, f'taken from it: {share:.0f}%', strides[-1])
        if index < num_levels - 1:
            show(grid[2, index + 1], unity[index] >= threshold, 'unit-cells', stride, cmap=UNITY, vmin=0, vmax=1)
    if label is None:
        grid[2, num_levels].set_axis_off()
    else:
        show(grid[2, num_levels], paint(label), 'ground truth')
    handles = [Patch(facecolor=levels(index), label=f'stride {stride}') for index, stride in enumerate(strides)]
    figure.legend(handles=handles, loc='outside lower center', ncols=num_levels, frameon=False)
    return figure


class PyramidLevelHook(WatchHook):
    """Log during training the share of pixels that each level of a ``PyramidRepresentationHead`` predicts, as ``pyramid_share/stride<stride>``.

    Args:
        interval: Iterations between two logged numbers; use the logger's interval or a divisor of it.
        picture_interval: Iterations between two pictures, see :class:`WatchHook`. None: no pictures.
    """

    name = 'pyramid'

    def watch(self, model):
        """Collect the unity maps and each level's logits.

        Raises:
            ValueError: If the model's decode head predicts no unity pyramid.
        """
        head = getattr(model, 'decode_head', None)
        if getattr(head, 'unity_head', None) is None:
            raise ValueError(f'PyramidLevelHook: decode_head must predict a unity pyramid, but got {type(head).__name__} without one')
        return watch({'unity': head.unity_head, **{f'level{index}': classifier for index, classifier in enumerate(head.conv_seg)}})

    def _levels(self, head, outputs):
        """Logits of each level, and the level that each pixel of the finest takes."""
        semantic = [outputs[f'level{index}'] for index in range(len(head.strides))]
        return semantic, fuse_pyramid(semantic, outputs['unity'], head.unity_threshold)[1]

    def scalars(self, model, outputs):
        """Count the pixels of each level."""
        head = model.decode_head
        _, level = self._levels(head, outputs)
        return {f'pyramid_share/stride{stride}': (level == index).float().mean().item() for index, stride in enumerate(head.strides)}

    def draw(self, runner, image, outputs):
        """Draw the pyramid of the first image."""
        head = unwrapped(runner.model).decode_head
        semantic, level = self._levels(head, outputs)
        labels = [logits[0].argmax(0).cpu().numpy() for logits in semantic]
        unity = [logits[0].sigmoid().cpu().numpy() for logits in outputs['unity']]
        return draw_pyramid(image, labels, unity, level[0].cpu().numpy(), head.strides, _palette(head.num_classes), head.unity_threshold)


def _palette(num_classes):
    """Colours of classes: evenly spaced hues, the first one black."""
    return [(0, 0, 0)] + [tuple(int(255 * channel) for channel in hsv_to_rgb((index / num_classes, 0.7, 0.9))) for index in range(1, num_classes)]
