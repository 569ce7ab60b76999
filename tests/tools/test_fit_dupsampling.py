"""The command line of the fit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmseg')

ROOT = Path(__file__).parents[2]
CONFIG = """
data = dict(
    type='BaseSegDataset', data_root={root!r}, metainfo=dict(classes=('ground', 'box', 'disc')), ann_file='train.txt',
    data_prefix=dict(img_path='images', seg_map_path='labels'),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')])
train_dataloader = dict(dataset=dict(type='RepeatDataset', times=3, dataset=dict(type='ConcatDataset', datasets=[data, data])))
"""


@pytest.fixture
def data(tmp_path):
    (tmp_path / 'labels').mkdir()
    random = np.random.default_rng(0)
    for index in range(4):
        label = np.kron(random.integers(0, 3, (3, 4)), np.ones((7, 6), int)).astype(np.uint8)
        label[0, 0] = 255
        Image.fromarray(label).save(tmp_path / 'labels' / f'{index}.png')
    (tmp_path / 'train.txt').write_text('0\n1\n2\n3\n')
    (tmp_path / 'config.py').write_text(CONFIG.format(root=str(tmp_path)))
    return tmp_path


def run(data, *arguments):
    command = [sys.executable, ROOT / 'tools' / 'fit_dupsampling.py', data / 'config.py', '--out', data / 'W.pth', '--ratio', '4', '--channels', '5']
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT)


def test_fits_writes_and_refuses_to_overwrite(data):
    done = run(data)
    assert done.returncode == 0, done.stderr
    fit = torch.load(data / 'W.pth', weights_only=True)
    assert fit['windows'] == 2 * 4 * 6 * 6  # both parts of the concatenation once, whatever the repetition
    assert fit['weight'].shape == (48, 5)
    assert f'mIoU of restored training labels: {fit["miou"]:.2f}' in done.stdout
    assert 'explained variance' in done.stdout
    assert Image.open(data / 'W.png').size == (3 * 50, 14 + 5 * 50)
    assert not list(data.glob('*.partial'))
    done = run(data)
    assert done.returncode == 2
    assert 'OUT must not exist without --overwrite' in done.stderr
    assert run(data, '--overwrite', '--method', 'sgd', '--steps', '2').returncode == 0
    assert torch.load(data / 'W.pth', weights_only=True)['method'] == 'sgd'


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda data: (data / 'labels' / '2.png').unlink(), 'must have a label file, but got no label for'),
        (lambda data: Image.fromarray(np.full((9, 9), 7, np.uint8)).save(data / 'labels' / '1.png'), r'labels must be in [0, 3) or 255, but got [7]'),
        (
            lambda data: (data / 'config.py').write_text((data / 'config.py').read_text().replace("dict(type='LoadAnnotations'),", '')),
            'LoadAnnotations',
        ),
    ],
)
def test_bad_data_leaves_no_file(data, spoil, message):
    spoil(data)
    done = run(data)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (data / 'W.pth').exists()
