"""Make label maps with VOC's 21 classes from COCO's instance annotations, for the first training round of DUpsampling's Table 5.

    python tools/dataset_converters/coco_to_voc21.py data/coco/annotations/instances_train2017.json data/coco/voc21/train2017

Writes one PNG per image that shows enough of VOC's twenty objects (0 background, 1..20 in VOC's order, 255 inside crowds) and beside the folder a
list of their names, train2017.txt, as ann_file. Where objects overlap, the smaller one is in front. Every map appears only when it is complete; a
second call goes on where the first one stopped.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from rich.progress import track

from mmpool_ext.files import whole_file

# In VOC's order, under COCO's names.
NAMES = ('airplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow')
NAMES += ('dining table', 'dog', 'horse', 'motorcycle', 'person', 'potted plant', 'sheep', 'couch', 'train', 'tv')
CROWD = 255


def label_map(coco: COCO, image_id: int, labels: dict[int, int]) -> np.ndarray:
    """Draw one image's objects, the largest first.

    Args:
        coco: The annotations.
        image_id: Image.
        labels: VOC label by COCO category id; other categories are background.

    Returns:
        Label map ``(H, W)``, uint8.
    """
    image = coco.imgs[image_id]
    label = np.zeros((image['height'], image['width']), dtype=np.uint8)
    annotations = [a for a in coco.imgToAnns[image_id] if a['category_id'] in labels]
    for annotation in sorted(annotations, key=lambda a: (not a['iscrowd'], -a['area'])):
        label[coco.annToMask(annotation).astype(bool)] = CROWD if annotation['iscrowd'] else labels[annotation['category_id']]
    return label


def main():
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help="COCO's instances_*.json")
    parser.add_argument('out', type=Path, help='folder of the label maps; the list of names becomes OUT.txt')
    parser.add_argument('--min-pixels', type=int, default=1000, help='leave out images with fewer labelled object pixels (default: %(default)s)')
    args = parser.parse_args()
    coco = COCO(args.annotations)
    ids = {category['name']: category['id'] for category in coco.cats.values()}
    missing = [name for name in NAMES if name not in ids]
    if missing:
        parser.error(f"annotations must hold COCO's categories, but got none named {missing}")
    labels = {ids[name]: index for index, name in enumerate(NAMES, start=1)}
    args.out.mkdir(parents=True, exist_ok=True)
    kept = []
    for image_id in track(sorted(coco.imgs), description='label maps'):
        name = Path(coco.imgs[image_id]['file_name']).stem
        path = args.out / f'{name}.png'
        there = path.exists()
        label = np.asarray(Image.open(path)) if there else label_map(coco, image_id, labels)
        if np.count_nonzero((label > 0) & (label != CROWD)) < args.min_pixels:
            continue
        if not there:
            with whole_file(path) as unfinished:
                Image.fromarray(label).save(unfinished)
        kept.append(name)
    list_path = args.out.with_suffix('.txt')
    with whole_file(list_path) as unfinished:
        unfinished.write_text(''.join(f'{name}\n' for name in kept))
    print(f'{len(kept)} of {len(coco.imgs)} images: {args.out} and {list_path}')


if __name__ == '__main__':
    main()
