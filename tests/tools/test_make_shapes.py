"""The shapes data set: reproducible, consistent between its two layouts, and safe to make."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

make_shapes = pytest.importorskip('make_shapes')
Image = pytest.importorskip('PIL.Image')


def make(out, *options):
    return subprocess.run([sys.executable, make_shapes.__file__, str(out), *map(str, options)], capture_output=True, text=True)


def hashes(root):
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('shapes') / 'data'
    run = make(root, '--num-train', 12, '--num-val', 3, '--size', 96, '--seed', 7)
    assert run.returncode == 0, run.stderr
    assert 'train images' in run.stdout
    return root


def test_same_seed_same_bytes(shapes, tmp_path):
    make_shapes.make_shapes(tmp_path / 'again', num_train=12, num_val=3, size=96, seed=7)
    assert hashes(tmp_path / 'again') == hashes(shapes)
    assert len(hashes(shapes)) == 2 * (12 + 3) + 2 + 2


def test_an_image_depends_on_seed_and_index_only(shapes, tmp_path):
    make_shapes.make_shapes(tmp_path / 'fewer', num_train=2, num_val=0, size=96, seed=7)
    make_shapes.make_shapes(tmp_path / 'other', num_train=2, num_val=0, size=96, seed=8)
    names = [f'{folder}/train_00001.{suffix}' for folder, suffix in (('JPEGImages', 'jpg'), ('SegmentationClass', 'png'))]
    for name in names:
        assert hashes(tmp_path / 'fewer')[name] == hashes(shapes)[name] != hashes(tmp_path / 'other')[name]


def test_boxes_masks_and_label_images_agree(shapes):
    coco = json.loads((shapes / 'annotations' / 'train.json').read_text())
    assert [c['name'] for c in coco['categories']] == ['box', 'disc', 'sign', 'lattice']
    assert (shapes / 'ImageSets' / 'Segmentation' / 'train.txt').read_text().split() == [Path(i['file_name']).stem for i in coco['images']]
    pixels = np.zeros(256, int)
    for image in coco['images']:
        label = np.asarray(Image.open(shapes / 'SegmentationClass' / f'{Path(image["file_name"]).stem}.png'))
        assert label.shape == (image['height'], image['width']) == Image.open(shapes / 'JPEGImages' / image['file_name']).size[::-1]
        expected = np.zeros_like(label)
        for annotation in coco['annotations']:
            if annotation['image_id'] != image['id']:
                continue
            counts = annotation['segmentation']['counts']
            mask = np.repeat(np.arange(len(counts)) % 2, counts).reshape(label.shape[::-1]).T.astype(bool)
            x, y, w, h = annotation['bbox']
            assert mask.sum() == annotation['area'] > 0
            assert mask[y : y + h, x : x + w].sum() == mask.sum()
            assert min(edge.any() for edge in (mask[y], mask[y + h - 1], mask[:, x], mask[:, x + w - 1]))
            expected[mask] = annotation['category_id']
        np.testing.assert_array_equal(label[label != 255], expected[label != 255])
        pixels += np.bincount(label.ravel(), minlength=256)
    assert np.all(pixels[:5] > 0), 'every class keeps labelled pixels, thin lines too'
    assert 0 < pixels[255] < pixels[1:5].sum()
    assert pixels[5:255].sum() == 0


def test_masks_are_read_by_pycocotools(shapes):
    COCO = pytest.importorskip('pycocotools.coco').COCO
    coco = COCO(shapes / 'annotations' / 'val.json')
    assert all(coco.annToMask(annotation).sum() == annotation['area'] for annotation in coco.anns.values())


def test_validation_backgrounds_are_unseen():
    (low, cut), (start, high) = make_shapes.SPLITS['train'], make_shapes.SPLITS['val']
    assert 0 <= low < cut <= start < high <= 1


def test_a_full_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine.txt').write_text('keep')
    run = make(tmp_path / 'out', '--num-train', 1)
    assert run.returncode == 2
    assert 'out must be a new or empty folder, but got' in run.stderr
    assert hashes(tmp_path).keys() == {'out/mine.txt'}


@pytest.mark.parametrize(('name', 'value', 'least'), [('num_train', -1, 0), ('num_val', -1, 0), ('size', 31, 32), ('seed', -1, 0)])
def test_numbers_out_of_range_are_refused(tmp_path, name, value, least):
    with pytest.raises(ValueError, match=f'make_shapes: {name} must be >= {least}, but got {value}'):
        make_shapes.make_shapes(tmp_path / 'out', **{name: value})
    assert not any(tmp_path.iterdir())


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(make_shapes, 'draw', lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_shapes.make_shapes(tmp_path / 'out', num_train=1, num_val=0)
    assert not any(tmp_path.iterdir())
