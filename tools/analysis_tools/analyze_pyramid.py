"""Compute from the labels of a data set what a perfect pyramid would reach; no network is run.

    python tools/analysis_tools/analyze_pyramid.py CONFIG [--loader train] [--strides 32 16 8 4] [--out analysis.json]

For each level: the share of its labelled cells that are unit-cells, the share of labelled pixels whose coarsest unit-cell it holds, the number of
predictions that it contributes, and the mIoU of giving every cell its most frequent label. For all levels together: predictions against labelled
pixels, and the mIoU of the fused map. For each class: where its pixels are. Labels are read by the config's own LoadAnnotations, at their own size
(``reduce_zero_label`` as the data set says), and continued with void to whole cells of the coarsest level. "-" stands for what does not occur.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from fit_dupsampling import LabelMaps, add_num_workers, load_labels, void_label, warn_of_absent_classes
from mmengine.config import Config
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmpool_ext.files import whole_file
from mmpool_ext.ops.pyramid import VOID_RULES, check_strides, fuse_pyramid, label_pyramid, upsample_cells


def majority_labels(label, stride, num_classes, ignore_index):
    """Return the most frequent label of each cell of ``(1, H, W)``; the smallest of equals, ``ignore_index`` where all is void."""
    rows, columns = label.shape[1] // stride, label.shape[2] // stride
    cells = torch.arange(rows * columns, device=label.device).view(1, rows, columns)
    keys = upsample_cells(cells, stride) * num_classes + label
    counts = torch.bincount(keys[label != ignore_index], minlength=rows * columns * num_classes).view(rows, columns, num_classes)
    return counts.argmax(2).masked_fill(counts.sum(2) == 0, ignore_index)[None]


class Analysis:
    """Sums over label maps; :meth:`add` one after the other, then ask for the :meth:`report`.

    Args:
        strides: Cell edges from the coarsest level to the finest.
        num_classes: Number of classes.
        ignore_index: The label of void pixels.
        void_rule: See ``label_pyramid``.
    """

    def __init__(self, strides, num_classes, ignore_index=255, void_rule='agree'):
        check_strides('analyze_pyramid', strides)
        self.strides, self.num_classes, self.ignore_index, self.void_rule = tuple(strides), num_classes, ignore_index, void_rule
        levels = len(strides)
        self.cells, self.unit_cells, self.predictions = (torch.zeros(levels, dtype=torch.long) for _ in range(3))
        self.pixels = torch.zeros(levels, num_classes, dtype=torch.long)  # by the level that holds their coarsest unit-cell
        self.areas = torch.zeros(3, levels + 1, num_classes, dtype=torch.long)  # intersection, prediction, label; the last row is the fused map

    def add(self, label):
        """Count a label map ``(H, W)`` of integers.

        Raises:
            ValueError: If a label is neither a class nor void: it would count as a class of the next cell.
        """
        wrong = label[(label != self.ignore_index) & ((label < 0) | (label >= self.num_classes))]
        if len(wrong):
            raise ValueError(
                f'analyze_pyramid: labels must be in [0, {self.num_classes}) or {self.ignore_index}, but got {wrong.unique()[:5].tolist()}'
            )
        stride, finest = self.strides[0], self.strides[-1]
        label = F.pad(label.long()[None], (0, -label.shape[1] % stride, 0, -label.shape[0] % stride), value=self.ignore_index)
        valid = label != self.ignore_index
        unity = label_pyramid(label, self.strides, self.ignore_index, self.void_rule)[1]
        majority = [majority_labels(label, s, self.num_classes, self.ignore_index) for s in self.strides]
        fused, level = fuse_pyramid([labels[:, None] for labels in majority], [(truth == 1) * 2.0 - 1 for truth in unity])
        maps = [*(upsample_cells(labels, s) for labels, s in zip(majority, self.strides, strict=True)), upsample_cells(fused[:, 0], finest)]
        for row, predicted in enumerate(maps):
            pairs = predicted[valid], label[valid]
            for area, values in zip(self.areas[:, row], (pairs[0][pairs[0] == pairs[1]], *pairs), strict=True):
                area += torch.bincount(values, minlength=self.num_classes)
        keys = upsample_cells(level, finest)[valid] * self.num_classes + label[valid]
        self.pixels += torch.bincount(keys, minlength=self.pixels.numel()).view_as(self.pixels)
        for index, labels in enumerate(majority):
            scale = self.strides[index] // finest
            self.cells[index] += (labels != self.ignore_index).sum()
            self.predictions[index] += ((level == index) & (fused[:, 0] != self.ignore_index))[:, ::scale, ::scale].sum()
            if index < len(unity):
                self.unit_cells[index] += (unity[index] == 1).sum()

    def report(self, classes):
        """Return everything as a dict of numbers: shares and mIoU in percent."""

        def percent(part, whole):
            return round(100 * part.item() / whole.item(), 2) if whole else None

        def miou(row):
            intersect, predicted, label = self.areas[:, row].double()
            return round(100 * (intersect / (predicted + label - intersect)).nanmean().item(), 2)

        total = self.pixels.sum()
        levels = {}
        for index, stride in enumerate(self.strides):
            levels[f'stride {stride}'] = dict(
                unit_cells=percent(self.unit_cells[index], self.cells[index]) if index < len(self.strides) - 1 else None,
                pixels=percent(self.pixels[index].sum(), total),
                predictions=self.predictions[index].item(),
                oracle_miou=miou(index),
            )
        per_class = {
            name: {f'stride {stride}': percent(self.pixels[index, c], self.pixels[:, c].sum()) for index, stride in enumerate(self.strides)}
            for c, name in enumerate(classes)
        }
        return dict(
            levels=levels,
            predictions=self.predictions.sum().item(),
            finest_cells=self.cells[-1].item(),
            labelled_pixels=total.item(),
            fused_oracle_miou=miou(len(self.strides)),
            classes=per_class,
        )


def print_report(report):
    """Print the tables."""

    def cell(value):
        return '-' if value is None else f'{value:,}' if isinstance(value, int) else f'{value:.2f}'

    table = Table('', 'unit-cells %', 'pixels %', 'predictions', 'oracle mIoU', title='Levels')
    for name, row in report['levels'].items():
        table.add_row(name, *map(cell, row.values()))
    table.add_row('fused', '', '', cell(report['predictions']), cell(report['fused_oracle_miou']))
    classes = Table('', *report['levels'], title="Where each class's pixels have their coarsest unit-cell, %")
    for name, row in report['classes'].items():
        classes.add_row(name, *map(cell, row.values()))
    console = Console()
    console.print(table, classes)
    counts = (f'{report[key]:,}' for key in ('predictions', 'finest_cells', 'labelled_pixels'))
    console.print('{} predictions for {} finest cells and {} labelled pixels'.format(*counts))


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path, help='an mmseg config')
    parser.add_argument('--loader', choices=['train', 'val', 'test'], default='train', help='whose labels (default: %(default)s)')
    parser.add_argument('--strides', type=int, nargs='+', default=[32, 16, 8, 4], help='coarsest first (default: 32 16 8 4)')
    parser.add_argument('--void-rule', choices=VOID_RULES, default='agree', help='how void counts in a cell (default: %(default)s)')
    parser.add_argument('--max-images', type=int, help='stop after this many')
    parser.add_argument('--out', type=Path, help='JSON file to write')
    parser.add_argument('--overwrite', action='store_true', help='write over OUT')
    add_num_workers(parser)
    args = parser.parse_args()
    if args.out is not None and args.out.exists() and not args.overwrite:
        parser.error(f'analyze_pyramid: out must be a new file, but got {args.out}; pass --overwrite to write over it')
    cfg = Config.fromfile(args.config)
    try:
        check_strides('analyze_pyramid', args.strides)
        datasets, _ = load_labels(cfg, args.loader, 'analyze_pyramid')
    except ValueError as error:
        parser.error(str(error))
    classes, ignore_index = datasets[0].metainfo['classes'], void_label(cfg, datasets)
    analysis = Analysis(args.strides, len(classes), ignore_index, args.void_rule)
    maps = LabelMaps(datasets, args.max_images)
    try:
        for label in track(maps.read(args.num_workers), 'labels', total=len(maps)):
            analysis.add(torch.from_numpy(label))
    except ValueError as error:
        parser.error(str(error))
    pixels = analysis.pixels.sum(0).tolist()
    if not any(pixels):
        parser.error(f'analyze_pyramid: labels must hold at least one labelled pixel, but got {len(maps)} maps of nothing but {ignore_index}')
    report = analysis.report(classes)
    print_report(report)
    warn_of_absent_classes(pixels, classes, ignore_index)
    if args.out is not None:
        with whole_file(args.out) as unfinished:
            unfinished.write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
