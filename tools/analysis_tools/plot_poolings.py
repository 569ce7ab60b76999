"""Draw what the poolings do, as Figs. 2 and 3 of the P-pooling paper, into one PNG.

    python tools/analysis_tools/plot_poolings.py OUT.png

Above: a map with a white and a grey point, pooled by 2x2 windows with stride 1. Below: the value of a window of two pixels, a surface over both.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from mmpool_ext.files import whole_file
from mmpool_ext.layers import DetailPreservingPool2d, LpPool2d
from mmpool_ext.ops import polynomial_pool2d


def detail_preserving(input, kernel_size, exponent=4.0):
    """Symmetric, lite, with a small alpha: what stands out decides (the paper's lambda = 4)."""
    pool = DetailPreservingPool2d(1, kernel_size, 1)
    torch.nn.init.constant_(pool.log_alpha, -20.0)
    torch.nn.init.constant_(pool.log_lambda, float(np.log(exponent)))
    with torch.no_grad():
        return pool(input)


def polynomial(alpha):
    """P-pooling with one order everywhere."""
    return lambda input, kernel_size: polynomial_pool2d(input, torch.tensor(float(alpha)), kernel_size, 1, 0)


def lp(norm):
    """Lp pooling of one order."""
    return lambda input, kernel_size: LpPool2d(1, kernel_size, 1, norm_type=norm)(input)


def gated(gate):
    """Gated pooling whose gate says the same everywhere."""
    return lambda input, kernel_size: gate * maximum(input, kernel_size) + (1 - gate) * average(input, kernel_size)


def average(input, kernel_size):
    """Average pooling."""
    return F.avg_pool2d(input, kernel_size, 1)


def maximum(input, kernel_size):
    """Max pooling."""
    return F.max_pool2d(input, kernel_size, 1)


MAPS = {'average': average, 'max': maximum, 'DPP (lambda = 4)': detail_preserving, 'P-pooling (alpha = 2)': polynomial(2)}
SURFACES = {
    'average': average,
    'max': maximum,
    'Lp (p = 1.5)': lp(1.5),
    'Lp (p = 3)': lp(3.0),
    'gated (gate = 0.3)': gated(0.3),
    'gated (gate = 0.7)': gated(0.7),
    'P-pooling (alpha = 2)': polynomial(2),
    'P-pooling (alpha = 10)': polynomial(10),
}


def points():
    """A bright square with a white point at its corner and a grey one inside, each of one pixel, on a darker ground."""
    image = torch.full((1, 1, 11, 11), 0.1)
    image[..., 4:9, 4:9] = 0.8
    image[..., 3, 3] = 1.0
    image[..., 6, 6] = 0.4
    return image


def draw() -> Figure:
    """Draw the maps and the surfaces."""
    figure = Figure(figsize=(14, 10))
    figure.subplots_adjust(0.02, 0.05, 0.98, 0.95)
    image = points()
    for column, (name, pool) in enumerate({'input': lambda input, _: input, **MAPS}.items()):
        axes = figure.add_subplot(3, 5, column + 1)
        axes.imshow(pool(image, 2)[0, 0], cmap='gray', vmin=0, vmax=1)
        axes.set(title=name, xticks=[], yticks=[])
    edge = torch.linspace(0, 1, 31)
    first, second = torch.meshgrid(edge, edge, indexing='ij')
    pairs = torch.stack([first, second], -1).view(-1, 1, 1, 2)
    for place, (name, pool) in enumerate(SURFACES.items()):
        axes = figure.add_subplot(3, 4, 5 + place, projection='3d')
        axes.plot_surface(first.numpy(), second.numpy(), pool(pairs, (1, 2)).view(31, 31).numpy(), cmap='viridis', linewidth=0)
        axes.set(title=name, xlabel='x1', ylabel='x2', zlim=(0, 1.6))
        axes.view_init(25, -120)
    return figure


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='PNG to write')
    parser.add_argument('--overwrite', action='store_true', help='replace OUT if it is there')
    args = parser.parse_args()
    if args.out.exists() and not args.overwrite:
        parser.error(f'{args.out} must not exist; pass --overwrite to replace')
    with whole_file(args.out) as unfinished:
        draw().savefig(unfinished, dpi=80, format=args.out.suffix[1:] or 'png')
    print(args.out)


if __name__ == '__main__':
    main()
