"""Fit DUpsampling to the shapes labels and train it beside bilinear upsampling of the same features, by mmseg's own scripts.

Prints tables and draws pictures; everything is written to work_dirs/demo/dupsampling: W and its components, table.json, restored.json (held-out
labels compressed and restored without a network, by PCA or by averages: no upper bound, which Table 1 trains networks for), predictions.png (Fig.
4) and losses.png (learnt temperature and T = 1: Fig. 5). An interrupted run is resumed by the next call.
"""

import argparse
import json
import subprocess
import sys

import demo
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from make_shapes import CLASSES, PALETTE
from matplotlib.patches import Patch
from PIL import Image

from mmpool_ext.layers.dupsampling_fit import LabelWindows, fit_dupsampling, mean_iou, reconstruction_confusion

WORK_DIR = demo.WORK_DIRS / 'dupsampling'
WEIGHT = WORK_DIR / 'shapes_r16_c64.pth'
ROWS = {
    'DUpsampling, fused': 'dupsampling_r18-os16-fused_1xb8-400i_shapes-160x160',
    'DUpsampling': 'dupsampling_r18-os16_1xb8-400i_shapes-160x160',
    'DUpsampling, T = 1': 'dupsampling_r18-os16-fixed-t_1xb8-400i_shapes-160x160',
    'bilinear': 'bilinear_r18-os16_1xb8-400i_shapes-160x160',
}
COLUMNS = {'mIoU': 'mIoU', 'pixel accuracy': 'aAcc'}
NUM_CLASSES = 1 + len(CLASSES)
VOID = 255
COLOURS = np.array([*PALETTE, *[(255, 255, 255)] * (256 - NUM_CLASSES)], dtype=np.uint8)


def labels(split):
    """Label maps of a split."""
    names = (demo.SHAPES / 'ImageSets' / 'Segmentation' / f'{split}.txt').read_text().split()
    return [np.array(Image.open(demo.SHAPES / 'SegmentationClass' / f'{name}.png')) for name in names]


def bilinear_confusion(maps, ratio):
    """Confusion of labels with themselves after averaging down by ``ratio`` and bilinear upsampling."""
    confusion = torch.zeros(NUM_CLASSES**2, dtype=torch.float64)
    for label in torch.from_numpy(np.stack(maps)).long().split(10):
        valid = label != VOID
        onehot = (label.unsqueeze(1) == torch.arange(NUM_CLASSES).view(-1, 1, 1)).float()
        restored = F.interpolate(F.avg_pool2d(onehot, ratio), label.shape[1:], mode='bilinear').argmax(dim=1)
        confusion += torch.bincount((label * NUM_CLASSES + restored)[valid], minlength=NUM_CLASSES**2)
    return confusion.view(NUM_CLASSES, NUM_CLASSES)


def restored_labels():
    """MIoU of the held-out labels after compression and restoration, by upsampling and ratio; W is fitted to the training labels."""
    train, val = labels('train'), labels('val')
    rows = {}
    for ratio, method in ((32, 'randomized'), (16, 'exact')):  # 5120 dimensions would take the exact method a minute
        windows = LabelWindows(NUM_CLASSES, ratio)
        for label in val:
            windows.add(label)
        windows.flush()
        fit = fit_dupsampling(train, NUM_CLASSES, ratio, 64, method=method)
        rows[f'bilinear, stride {ratio}'] = {'mIoU': mean_iou(bilinear_confusion(val, ratio))}
        rows[f'DUpsampling, stride {ratio}'] = {'mIoU': mean_iou(reconstruction_confusion(windows, fit))}
    for ratio in (32, 16):
        margin = rows[f'DUpsampling, stride {ratio}']['mIoU'] - rows[f'bilinear, stride {ratio}']['mIoU']
        print(f'Labels restored from stride {ratio}: DUpsampling is {margin:.1f} points of mIoU above bilinear')
    return rows


def draw_predictions(rows, path, num_images):
    """Draw images, ground truth and predictions, a column an image."""
    names = (demo.SHAPES / 'ImageSets' / 'Segmentation' / 'val.txt').read_text().split()[:num_images]
    lines = {'image': [Image.open(demo.SHAPES / 'JPEGImages' / f'{name}.jpg') for name in names]}
    lines['ground truth'] = [COLOURS[np.array(Image.open(demo.SHAPES / 'SegmentationClass' / f'{name}.png'))] for name in names]
    for row, metrics in rows.items():
        folder = WORK_DIR / ROWS[row] / 'predictions'
        lines[f'{row}\nmIoU {metrics["mIoU"]:.1f}'] = [COLOURS[np.array(Image.open(folder / f'{name}.png'))] for name in names]
    figure, grid = plt.subplots(len(lines), num_images, figsize=(2 * num_images, 2.1 * len(lines)), layout='constrained', squeeze=False)
    for axes, (title, pictures) in zip(grid, lines.items(), strict=True):
        axes[0].set_ylabel(title, fontsize=11)
        for one, picture in zip(axes, pictures, strict=True):
            one.imshow(picture, interpolation='nearest')
            one.set(xticks=[], yticks=[])
    handles = [Patch(facecolor=COLOURS[index] / 255, label=name) for index, name in enumerate(('background', *CLASSES))]
    figure.legend(handles=[*handles, Patch(facecolor='white', edgecolor='grey', label='void')], loc='outside lower center', ncols=6, frameon=False)
    figure.suptitle('Held-out shapes, stride 16', fontsize=14)
    figure.savefig(path, dpi=110)


def scalars(config):
    """What training logged, a dictionary a line, in order."""
    files = sorted((WORK_DIR / config).glob('*/vis_data/scalars.json'))
    return [entry for file in files for entry in map(json.loads, file.read_text().splitlines()) if 'decode.loss_ce' in entry]


def draw_losses(path):
    """Draw the training loss with a learnt and a fixed temperature, and the temperature."""
    figure, (loss, temperature) = plt.subplots(1, 2, figsize=(10, 4), layout='constrained')
    for name, label in (('DUpsampling', 'learnt temperature'), ('DUpsampling, T = 1', 'T = 1')):
        log = scalars(ROWS[name])
        steps = [entry['step'] for entry in log]
        loss.plot(steps, [entry['decode.loss_ce'] for entry in log], label=label)
        temperature.plot(steps, [entry['decode.temperature'] for entry in log], label=label)
    loss.set(xlabel='iteration', ylabel='training loss (cross entropy)', yscale='log')
    temperature.set(xlabel='iteration', ylabel='temperature T')
    loss.legend()
    figure.savefig(path, dpi=110)


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--num-images', type=int, default=6, help='held-out images in the picture (default: %(default)s)')
    args = parser.parse_args()
    demo.make_shapes()
    WORK_DIR.mkdir(parents=True, exist_ok=True)
    if not WEIGHT.exists():
        fit = demo.ROOT / 'tools' / 'analysis_tools' / 'fit_dupsampling.py'
        command = [sys.executable, fit, demo.CONFIGS / f'{ROWS["DUpsampling"]}.py', '--out', WEIGHT, '--overwrite']
        subprocess.run(command, cwd=demo.ROOT, check=True)
    jobs = [('mmseg', demo.CONFIGS / f'{config}.py', WORK_DIR / config, '--out', WORK_DIR / config / 'predictions') for config in ROWS.values()]
    rows = dict(zip(ROWS, demo.train_and_test_together(jobs), strict=True))
    demo.print_table('Segmentation of held-out shapes at stride 16', rows, COLUMNS, WORK_DIR / 'table.json')
    demo.print_study('dupsampling', 'DUpsampling, stride 16', 'DUpsampling, fused', 'DUpsampling, T = 1')
    demo.print_table('Held-out labels, compressed and restored', restored_labels(), {'mIoU': 'mIoU'}, WORK_DIR / 'restored.json')
    temperatures = {name: scalars(ROWS[name])[-1]['decode.temperature'] for name in ('DUpsampling', 'DUpsampling, fused')}
    print('Temperature after training, from 1: ' + ', '.join(f'{value:.3f} ({name})' for name, value in temperatures.items()))
    draw_predictions(rows, WORK_DIR / 'predictions.png', args.num_images)
    draw_losses(WORK_DIR / 'losses.png')
    print(f'Pictures: {WORK_DIR / "predictions.png"}, {WORK_DIR / "losses.png"}, {WEIGHT.with_suffix(".png")}')


if __name__ == '__main__':
    main()
