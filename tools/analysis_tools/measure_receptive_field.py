"""Measure how compact a detector's effective receptive fields are, and how much of them lies on objects: the LIP paper's Fig. 5 in figures.

    python tools/analysis_tools/measure_receptive_field.py CONFIG CHECKPOINT --num-images 20 --out fields.json

For every object of the test images, the class activation map of its class is taken back to the pixels from two places: the middle of the object, and
a place beside it, as far from its middle as it is wide. The paper says of LIP that its fields are more compact, and that they keep to the foreground
even where the place does not. Reported are means over the objects:

- radius: pixels around the object's middle that hold half of the field;
- inside: share of the field of the object's middle that lies in the object's box;
- beside: share of the field of the place beside it that lies in boxes of objects, whichever.
"""

import argparse
import json
from pathlib import Path

import torch
from mmengine.registry import DATASETS
from rich.console import Console
from rich.progress import track
from rich.table import Table
from visualize_lip import load_image, load_model, look

from mmpool_ext.files import whole_file
from mmpool_ext.visualization.receptive_field import half_radius, receptive_field


def share_inside(field, boxes):
    """Share of a field ``(H, W)`` that lies in the union of boxes ``(left, top, right, bottom)``, in pixels."""
    inside = torch.zeros_like(field, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        inside[round(top) : round(bottom), round(left) : round(right)] = True
    return float(field[inside].sum() / field.sum())


def places(box, width):
    """Middle of a box, and the place beside it in an image of ``width`` pixels: left or right, where there is more room; None if there is none."""
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    beside = x + (right - left) * (1 if width - right > left else -1)
    return (int(x), int(y)), (int(beside), int(y)) if 0 <= beside < width else None


def fields_of(model, info, stage):
    """Yield radius, share inside and share beside (None if an object leaves no room) for each object of an image."""
    image, batch = load_image(model, info['img_path'])
    height, width = image.shape[:2]
    instances = [instance for instance in info['instances'] if not instance['ignore_flag']]
    across, down = width / info['width'], height / info['height']
    boxes = [[side * scale for side, scale in zip(instance['bbox'], (across, down, across, down), strict=True)] for instance in instances]
    for instance, box in zip(instances, boxes, strict=True):
        inputs, activation, *_ = look(model, batch, instance['bbox_label'], stage)
        middle, beside = places(box, width)
        field = receptive_field(activation, inputs, middle)[:height, :width]
        if field.sum() == 0:
            continue  # the class activation map is 0 there: no channel that the class needs is active
        outer = None if beside is None else receptive_field(activation, inputs, beside)[:height, :width]
        yield half_radius(field, middle), share_inside(field, [box]), None if outer is None or outer.sum() == 0 else share_inside(outer, boxes)


def measure(model, infos, stage=-1):
    """Return the means over all objects of some images.

    Args:
        model: A detector of :func:`visualize_lip.load_model`.
        infos: What an mmdet data set says of each image.
        stage: Index of the class activation map's features among the backbone's outputs.

    Returns:
        ``radius``, ``inside``, ``beside`` and the number of ``objects``.

    Raises:
        ValueError: If no object has a field.
    """
    found = [row for info in track(infos, description='images', transient=True) for row in fields_of(model, info, stage)]
    columns = [[value for value in column if value is not None] for column in zip(*found, strict=True)]
    if not all(columns) or not columns:
        raise ValueError(
            f'measure_receptive_field: images must show objects, with room beside them, that the network responds to, but got {len(infos)} without'
        )
    means = dict(zip(('radius', 'inside', 'beside'), (sum(column) / len(column) for column in columns), strict=True))
    return means | dict(objects=len(found))


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of mmdet')
    parser.add_argument('checkpoint', help='trained weights')
    parser.add_argument('--num-images', type=int, default=20, help='the first ones of the test set (default: %(default)s)')
    parser.add_argument('--stage', type=int, default=-1, help="which of the backbone's outputs to look at (default: the last, as in the paper)")
    parser.add_argument('--out', type=Path, help='JSON file')
    args = parser.parse_args()
    if args.num_images < 1:
        parser.error(f'--num-images must be >= 1, but got {args.num_images}')
    try:
        model = load_model(args.config, args.checkpoint)
        dataset = DATASETS.build(model.cfg.test_dataloader.dataset)
        infos = [dataset.get_data_info(index) for index in range(min(args.num_images, len(dataset)))]
        means = measure(model, infos, args.stage)
    except (ValueError, RuntimeError, OSError) as error:
        parser.error(str(error))
    table = Table('radius', 'inside', 'beside', title=f'{means["objects"]} objects in {len(infos)} images')
    table.add_row(f'{means["radius"]:.1f} pixels', f'{means["inside"]:.3f}', f'{means["beside"]:.3f}')
    Console().print(table)
    if args.out:
        with whole_file(args.out) as unfinished:
            unfinished.write_text(json.dumps(means) + '\n')


if __name__ == '__main__':
    main()
