"""The pictures of README and of the pages: all drawn, small enough to commit, and those that are committed are of this kind."""

import sys
from pathlib import Path

import demo
import pytest
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
import demo_pictures
from make_shapes import make_shapes

NAMES = {'overview.png', 'lip.png', 'ppool.png', 'dupsampling.png', 'pyramid.png'}


def check(folder):
    assert {path.name for path in folder.glob('*.png')} == NAMES
    for path in folder.glob('*.png'):
        assert path.stat().st_size < 150_000, path
        assert min(Image.open(path).size) > 200, path


def test_draws_all_from_untrained_networks(tmp_path, monkeypatch):
    load = demo_pictures.load
    monkeypatch.setattr(demo, 'SHAPES', tmp_path / 'shapes')
    monkeypatch.setattr(demo_pictures, 'load', lambda method, trained=True: load(method, trained=False))
    monkeypatch.setattr(sys, 'argv', ['demo_pictures.py', '--out', str(tmp_path / 'images')])
    make_shapes(tmp_path / 'shapes', num_train=8, num_val=1, size=160)
    demo_pictures.main()
    check(tmp_path / 'images')


def test_committed_pictures_are_all_there_and_small():
    check(Path(__file__).parents[2] / 'docs' / 'images')
