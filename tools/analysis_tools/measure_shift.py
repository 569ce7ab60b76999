"""Measure how much of a segmentor's prediction stays when the image moves by a few pixels.

    python tools/analysis_tools/measure_shift.py CONFIG CHECKPOINT --shifts 1 2 4 8 --out consistency.json

Two crops of each test image, one of them moved right or down by the shift, are predicted; the consistency is the share of the pixels in both whose
class is the same. That is what anti-aliased pooling is for: strides and maxima let predictions jump as the grid moves over an edge. Neither crop
sees padding that the other does not, but a network's own padding moves with the crop, so a margin at the crops' edges does not count.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mmpool_ext  # noqa: F401 tells mmengine where configs are
from mmpool_ext.files import whole_file


def crops(image, shift, size, axis):
    """Cut two squares of ``size`` pixels out of ``(H, W, 3)``, the second moved along an axis (0: down, 1: right)."""
    place = [(edge - size) // 2 for edge in image.shape[:2]]
    place[axis] = (image.shape[axis] - size - shift) // 2
    moved = list(place)
    moved[axis] += shift
    return [image[top : top + size, left : left + size] for top, left in (place, moved)]


def agreement(first, second, shift, axis, margin):
    """Share of the pixels with the same class, of those that both label maps ``(size, size)`` show, ``margin`` pixels of each edge left out."""
    inner = first.shape[axis] - margin
    first, second = np.moveaxis(first, axis, 0), np.moveaxis(second, axis, 0)
    sides = slice(margin, first.shape[1] - margin)
    return float((first[margin + shift : inner, sides] == second[margin : inner - shift, sides]).mean())


@torch.no_grad()
def predict(model, images):
    """Label maps of RGB images of one size."""
    inputs = [torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) for image in images]  # OpenCV's order, as mmseg's loader gives
    from mmseg.structures import SegDataSample

    samples = [SegDataSample(metainfo=dict(ori_shape=image.shape[:2], img_shape=image.shape[:2])) for image in images]
    results = model.test_step(dict(inputs=inputs, data_samples=samples))
    return [result.pred_sem_seg.data[0].cpu().numpy() for result in results]


def measure(model, paths, shifts, size, margin):
    """Return the mean consistency by shift, over images and both directions, from 0 to 1."""
    sums = dict.fromkeys(shifts, 0.0)
    for path in track(paths, description='images'):
        image = np.asarray(Image.open(path).convert('RGB'))
        if min(image.shape[:2]) < size + max(shifts):
            raise ValueError(f'measure_shift: size must be at most the image minus the shift, but got {size} and {path} of {image.shape[:2]}')
        for shift in shifts:
            for axis in (0, 1):
                labels = predict(model, crops(image, shift, size, axis))
                sums[shift] += agreement(*labels, shift, axis, margin) / 2
    return {shift: total / len(paths) for shift, total in sums.items()}


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of mmseg')
    parser.add_argument('checkpoint', help='trained weights')
    parser.add_argument('--shifts', type=int, nargs='+', default=[1, 2, 4, 8], help='pixels (default: %(default)s)')
    parser.add_argument('--size', type=int, default=128, help='edge of the crops in pixels (default: %(default)s)')
    parser.add_argument('--margin', type=int, default=16, help='pixels of the crops that do not count at each edge (default: %(default)s)')
    parser.add_argument('--num-images', type=int, default=50, help='the first ones of the test set (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='JSON file {shift: consistency}')
    parser.add_argument('--device', default='cpu', help='(default: %(default)s)')
    args = parser.parse_args()
    for name in ('size', 'num_images'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be >= 1, but got {getattr(args, name)}')
    if min(args.shifts) < 1 or 2 * args.margin + max(args.shifts) >= args.size:
        parser.error(f'--shifts must be >= 1 and leave pixels inside of the margins, but got {args.shifts}')
    cfg = Config.fromfile(args.config)
    init_default_scope('mmseg')
    from mmseg.registry import DATASETS, MODELS

    model = MODELS.build(cfg.model)
    os.environ.setdefault('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # torch >= 2.6 refuses the checkpoints that mmengine <= 0.10.7 writes
    load_checkpoint(model, args.checkpoint, map_location='cpu')
    model = model.to(args.device).eval()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    paths = [dataset.get_data_info(index)['img_path'] for index in range(min(args.num_images, len(dataset)))]
    try:
        consistency = measure(model, paths, sorted(set(args.shifts)), args.size, args.margin)
    except ValueError as error:
        parser.error(str(error))
    table = Table('shift', 'same class', title=f'{len(paths)} images')
    for shift, share in consistency.items():
        table.add_row(str(shift), f'{share:.4f}')
    Console().print(table)
    if args.out:
        with whole_file(args.out) as unfinished:
            unfinished.write_text(json.dumps(consistency) + '\n')


if __name__ == '__main__':
    main()
