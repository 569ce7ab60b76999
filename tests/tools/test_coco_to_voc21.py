"""COCO's instances as label maps of VOC's classes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('pycocotools')

ROOT = Path(__file__).parents[2]


def square(image_id, category_id, x, y, size, iscrowd=0):
    box = [x, y, x + size, y, x + size, y + size, x, y + size]
    mask = dict(segmentation=[box])
    if iscrowd:
        column = np.zeros((40, 60), int)
        column[y : y + size, x : x + size] = 1
        flat = column.T.ravel()
        counts = np.diff(np.r_[0, np.flatnonzero(np.diff(np.r_[0, flat, 0])), flat.size]).tolist()
        mask = dict(segmentation=dict(size=[40, 60], counts=counts))
    return dict(image_id=image_id, category_id=category_id, area=size**2, bbox=[x, y, size, size], iscrowd=iscrowd, **mask)


@pytest.fixture
def annotations(tmp_path):
    from coco_to_voc21 import NAMES

    categories = [dict(id=100 + i, name=name) for i, name in enumerate((*reversed(NAMES), 'giraffe'))]
    ids = {c['name']: c['id'] for c in categories}
    images = [dict(id=i, file_name=f'{i:04d}.jpg', height=40, width=60) for i in range(3)]
    objects = [
        square(0, ids['person'], 0, 0, 30),
        square(0, ids['tv'], 5, 5, 10),
        square(0, ids['giraffe'], 40, 0, 10),
        square(0, ids['airplane'], 40, 20, 10),
        square(0, ids['sheep'], 20, 20, 20, iscrowd=1),
        square(1, ids['cat'], 0, 0, 4),
        square(2, ids['giraffe'], 0, 0, 40),
    ]
    for index, one in enumerate(objects, start=1):
        one['id'] = index
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(dict(images=images, annotations=objects, categories=categories)))
    return path


def run(annotations, *arguments):
    command = [sys.executable, ROOT / 'tools' / 'dataset_converters' / 'coco_to_voc21.py', annotations, annotations.parent / 'voc21', *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_draws_vocs_classes_small_in_front(annotations):
    done = run(annotations, '--min-pixels', '100')
    assert done.returncode == 0, done.stderr
    assert '1 of 3 images' in done.stdout
    out = annotations.parent / 'voc21'
    assert [path.name for path in out.iterdir()] == ['0000.png']
    assert (annotations.parent / 'voc21.txt').read_text() == '0000\n'
    label = np.array(Image.open(out / '0000.png'))
    assert label.shape == (40, 60)
    assert label[1, 1] == 15  # person
    assert label[10, 10] == 20  # the screen in front
    assert label[5, 45] == 0  # no giraffe in VOC
    assert label[25, 45] == 1  # aeroplane
    assert label[35, 35] == 255  # crowd
    assert label[25, 25] == 15  # an object in front of a crowd
    assert run(annotations, '--min-pixels', '100').returncode == 0
    assert '0 of 3 images' in run(annotations, '--min-pixels', '1200').stdout  # of the map that is there
    assert (annotations.parent / 'voc21.txt').read_text() == ''


def test_other_categories(annotations):
    content = json.loads(annotations.read_text())
    content['categories'] = content['categories'][1:]
    annotations.write_text(json.dumps(content))
    done = run(annotations)
    assert done.returncode == 2
    assert "annotations must hold COCO's categories, but got none named ['tv']" in done.stderr
