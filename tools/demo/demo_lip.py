"""Train a small Faster R-CNN with LIP on shapes, and its twin without any, by mmdet's own scripts; print a table, draw what both detect.

Both train at the same time. Everything is written to work_dirs/demo/lip. An interrupted run is resumed by the next call.
"""

import argparse
import json
import pickle
import subprocess
import sys

import demo
import matplotlib.pyplot as plt
from make_shapes import CLASSES, PALETTE
from matplotlib.patches import Patch, Rectangle
from PIL import Image

WORK_DIR = demo.WORK_DIRS / 'lip'
ROWS = {
    'LIP': 'faster-rcnn_lip-r14_fpn_1xb8-400i_shapes-160x160',
    'no LIP': 'faster-rcnn_r14_fpn_1xb8-400i_shapes-160x160',
}
COLUMNS = {'AP': 'coco/bbox_mAP', 'AP50': 'coco/bbox_mAP_50', 'AP small': 'coco/bbox_mAP_s'}
COLOURS = [tuple(channel / 255 for channel in colour) for colour in PALETTE[1:]]
MIN_SCORE = 0.5


def draw(axes, image, boxes, labels, scores=None):
    """Draw boxes ``(x1, y1, x2, y2)`` on an image; with scores, only those that reach ``MIN_SCORE``."""
    axes.imshow(image, interpolation='bicubic')
    axes.set(xticks=[], yticks=[])
    for index, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        if scores is None or scores[index] >= MIN_SCORE:
            corner, size = (box[0] - 0.5, box[1] - 0.5), (box[2] - box[0], box[3] - box[1])
            axes.add_patch(Rectangle(corner, *size, fill=False, linewidth=2, edgecolor=COLOURS[label]))


def picture(rows, path, num_images):
    """Draw ground truth and each network's detections for the first held-out images."""
    coco = json.loads((demo.SHAPES / 'annotations' / 'val.json').read_text())
    figure, grid = plt.subplots(1 + len(rows), num_images, figsize=(2.6 * num_images, 2.75 * (1 + len(rows))), layout='constrained', squeeze=False)
    photos = [Image.open(demo.SHAPES / 'JPEGImages' / image['file_name']) for image in coco['images'][:num_images]]
    for axes, image, photo in zip(grid[0], coco['images'], photos, strict=False):
        truth = [a for a in coco['annotations'] if a['image_id'] == image['id']]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (a['bbox'] for a in truth)]
        draw(axes, photo, boxes, [a['category_id'] - 1 for a in truth])
    grid[0, 0].set_ylabel('ground truth', fontsize=14)
    for line, (name, metrics) in zip(grid[1:], rows.items(), strict=True):
        results = {r['img_id']: r['pred_instances'] for r in pickle.loads((WORK_DIR / ROWS[name] / 'results.pkl').read_bytes())}
        for axes, image, photo in zip(line, coco['images'], photos, strict=False):
            found = results[image['id']]
            draw(axes, photo, found['bboxes'].tolist(), found['labels'].tolist(), found['scores'].tolist())
        line[0].set_ylabel(f'{name} (AP50 {metrics[COLUMNS["AP50"]]:.2f})', fontsize=14)
    handles = [Patch(facecolor='none', edgecolor=colour, linewidth=2, label=name) for name, colour in zip(CLASSES, COLOURS, strict=True)]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(CLASSES), frameon=False, fontsize=14)
    figure.suptitle(f'Held-out shapes: detections with a score of at least {MIN_SCORE}', fontsize=16)
    figure.savefig(path, dpi=110)


def draw_importance():
    """Draw the logits of the trained LIPs above those that they start with, for the first held-out image; return the picture's path."""
    config, picture = demo.CONFIGS / f'{ROWS["LIP"]}.py', WORK_DIR / 'importance.png'
    checkpoint = (WORK_DIR / ROWS['LIP'] / 'last_checkpoint').read_text()
    image = min((demo.SHAPES / 'JPEGImages').glob('val_*.jpg'))
    tool = demo.ROOT / 'tools' / 'analysis_tools' / 'visualize_lip.py'
    networks = ['--network', 'trained', config, checkpoint, '--network', 'LIP', config]
    command = [sys.executable, tool, image, picture, *networks, '--num-channels', '3', '--overwrite']
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return picture


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--num-images', type=int, default=6, help='held-out images in the picture (default: %(default)s)')
    args = parser.parse_args()
    demo.make_shapes()
    jobs = [('mmdet', demo.CONFIGS / f'{config}.py', WORK_DIR / config, '--out', WORK_DIR / config / 'results.pkl') for config in ROWS.values()]
    rows = dict(zip(ROWS, demo.train_and_test_together(jobs), strict=True))
    demo.print_table('Faster R-CNN on held-out shapes', rows, COLUMNS, WORK_DIR / 'table.json')
    demo.print_study('lip', 'A: LIP everywhere')
    picture(rows, WORK_DIR / 'detections.png', args.num_images)
    print(f'Detections beside ground truth: {WORK_DIR / "detections.png"}')
    print(f'What LIP weights, trained and as it starts: {draw_importance()}')


if __name__ == '__main__':
    main()
