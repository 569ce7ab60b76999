"""Train a small U-Net with P-pooling on shapes, and its twin with max pooling, by mmseg's own scripts; print both mIoU, enlarge thin structures.

Both have the same seed and schedule, and train at the same time. Everything is written to work_dirs/demo/ppool. An interrupted run is
resumed by the next call.
"""

import argparse

import demo
import matplotlib.pyplot as plt
import numpy as np
from make_shapes import CLASSES, PALETTE
from matplotlib.patches import Patch, Rectangle
from PIL import Image

WORK_DIR = demo.WORK_DIRS / 'ppool'
ROWS = {
    'P-pooling': 'fcn_ppool-unet_1xb4-1000i_shapes-160x160',
    'max pooling': 'fcn_maxpool-unet_1xb4-1000i_shapes-160x160',
}
COLUMNS = {'mIoU': 'mIoU', 'pixel accuracy': 'aAcc'}
LATTICE = 1 + CLASSES.index('lattice')
EDGE = 56  # pixels of the enlarged part
COLOURS = np.vstack([PALETTE, np.full((256 - len(PALETTE), 3), 255)]).astype(np.uint8)  # void is white


def thinnest(labels, count):
    """The images with the most lattice, and the middle of the lattice in each: ``{stem: (top, left)}`` of the part to enlarge."""
    chosen = sorted(labels, key=lambda stem: -(labels[stem] == LATTICE).sum())[:count]
    corners = {}
    for stem in chosen:
        middle = np.argwhere(labels[stem] == LATTICE).mean(0)
        corners[stem] = np.clip((middle - EDGE / 2).astype(int), 0, np.array(labels[stem].shape) - EDGE)
    return corners


def picture(rows, path, num_images):
    """Draw images, and the part with most lattice enlarged: as it is, its labels, and what each network makes of it."""
    stems = (demo.SHAPES / 'ImageSets' / 'Segmentation' / 'val.txt').read_text().split()
    labels = {stem: np.array(Image.open(demo.SHAPES / 'SegmentationClass' / f'{stem}.png')) for stem in stems}
    corners = thinnest(labels, num_images)
    titles = ['image', 'enlarged', 'labels', *(f'{name}\nmIoU {metrics["mIoU"]:.2f}' for name, metrics in rows.items())]
    figure, grid = plt.subplots(len(titles), num_images, figsize=(2.2 * num_images, 2.25 * len(titles)), layout='constrained', squeeze=False)
    for column, (stem, (top, left)) in zip(grid.T, corners.items(), strict=True):
        photo = np.array(Image.open(next((demo.SHAPES / 'JPEGImages').glob(f'{stem}.*'))))
        maps = [labels[stem], *(np.array(Image.open(WORK_DIR / config / 'predictions' / f'{stem}.png')) for config in ROWS.values())]
        column[0].imshow(photo)
        column[0].add_patch(Rectangle((left - 0.5, top - 0.5), EDGE, EDGE, fill=False, edgecolor='white', linewidth=1.5))
        for axes, picture in zip(column[1:], [photo, *(COLOURS[labels] for labels in maps)], strict=True):
            axes.imshow(picture[top : top + EDGE, left : left + EDGE], interpolation='nearest')
    for axes, title in zip(grid[:, 0], titles, strict=True):
        axes.set_ylabel(title, fontsize=13)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    names = ('background', *CLASSES, 'void')
    handles = [Patch(facecolor=COLOURS[i] / 255, edgecolor='grey', label=name) for i, name in enumerate(names)]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(names), frameon=False, fontsize=13)
    figure.savefig(path, dpi=110)


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--num-images', type=int, default=6, help='held-out images in the picture (default: %(default)s)')
    args = parser.parse_args()
    demo.make_shapes()
    jobs = [('mmseg', demo.CONFIGS / f'{config}.py', WORK_DIR / config, '--out', WORK_DIR / config / 'predictions') for config in ROWS.values()]
    percents = demo.train_and_test_together(jobs)
    rows = {name: {key: percent[key] / 100 for key in COLUMNS.values()} for name, percent in zip(ROWS, percents, strict=True)}
    demo.print_table('U-Net on held-out shapes', rows, COLUMNS, WORK_DIR / 'table.json')
    demo.print_study('ppool', 'P-pooling')
    picture(rows, WORK_DIR / 'thin_structures.png', args.num_images)
    print(f'Thin structures enlarged: {WORK_DIR / "thin_structures.png"}')


if __name__ == '__main__':
    main()
