"""The picture of the P-pooling demo shows the lattices, in labels and predictions alike."""

import demo
import demo_ppool
import numpy as np
import pytest
from make_shapes import make_shapes
from mmengine.config import Config
from PIL import Image


def test_enlarges_the_part_with_most_lattice():
    labels = {name: np.zeros((100, 120), np.uint8) for name in ('none', 'some', 'corner')}
    labels['some'][40:50, 60:70] = demo_ppool.LATTICE
    labels['corner'][:20, :20] = demo_ppool.LATTICE
    corners = demo_ppool.thinnest(labels, 2)
    assert list(corners) == ['corner', 'some']
    assert corners['corner'].tolist() == [0, 0]
    assert corners['some'].tolist() == [16, 36]  # the middle (44.5, 64.5) less half of 56


def test_draws_every_network(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, 'SHAPES', tmp_path / 'shapes')
    monkeypatch.setattr(demo_ppool, 'WORK_DIR', tmp_path)
    make_shapes(tmp_path / 'shapes', num_train=0, num_val=3, size=80, seed=0)
    for config in demo_ppool.ROWS.values():
        (tmp_path / config / 'predictions').mkdir(parents=True)
        for path in (tmp_path / 'shapes' / 'SegmentationClass').glob('*.png'):
            Image.fromarray(np.array(Image.open(path)) % 5).save(tmp_path / config / 'predictions' / path.name)
    demo_ppool.picture({name: dict(mIoU=0.5) for name in demo_ppool.ROWS}, tmp_path / 'x.png', 2)
    assert Image.open(tmp_path / 'x.png').size[0] > 300


def test_both_networks_have_the_same_seed_and_schedule():
    pytest.importorskip('mmseg')
    ours, twin = (Config.fromfile(demo.CONFIGS / f'{config}.py') for config in demo_ppool.ROWS.values())
    assert ours.model.backbone.pool.type == 'PolynomialPool2d'
    twin.model.backbone.pool.type = 'PolynomialPool2d'
    assert ours.to_dict() == twin.to_dict()
