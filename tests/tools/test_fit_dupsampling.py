"""The command line of the fit."""

import os
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


def run(data, *arguments, env=None):
    tool = ROOT / 'tools' / 'analysis_tools' / 'fit_dupsampling.py'
    command = [sys.executable, tool, data / 'config.py', '--out', data / 'W.pth', '--ratio', '4', '--channels', '5']
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, env=env)


def test_fits_writes_and_refuses_to_overwrite(data):
    done = run(data)
    assert done.returncode == 0, done.stderr
    fit = torch.load(data / 'W.pth', weights_only=True)
    assert fit['windows'] == 2 * 4 * 6 * 6  # both parts of the concatenation once, whatever the repetition
    assert fit['weight'].shape == (48, 5)
    assert f'mIoU of restored training labels: {fit["miou"]:.2f}' in done.stdout
    assert 'explained variance' in done.stdout
    assert Image.open(data / 'W.png').size == (3 * 50, 14 + 5 * 50)
    assert not list(data.glob('.*'))
    done = run(data)
    assert done.returncode == 2
    assert 'OUT and its picture must not exist without --overwrite, but got' in done.stderr
    (data / 'W.pth').unlink()
    done = run(data)
    assert done.returncode == 2
    assert 'W.png' in done.stderr
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


def test_a_class_that_never_occurs_is_named(data):
    """Labels of 0 and 255 for two classes: the foreground is void, and the fit would end well with an mIoU of 100."""
    for path in (data / 'labels').iterdir():
        label = np.array(Image.open(path))
        Image.fromarray(np.where(label == 2, 255, label)).save(path)
    done = run(data)
    assert done.returncode == 0, done.stderr
    assert 'warning: no pixel has disc; 255 is void, and other labels than 0 to 2 are none' in done.stdout
    for path in (data / 'labels').iterdir():
        Image.fromarray(np.full((21, 24), 255, np.uint8)).save(path)
    done = run(data, '--overwrite')
    assert done.returncode == 2
    assert 'labels must hold at least one labelled window, but got 288 windows, all void' in done.stderr


def test_void_is_the_label_that_the_head_ignores(data):
    config = data / 'config.py'
    config.write_text(config.read_text() + "model = dict(decode_head=dict(type='DUpsamplingHead', ignore_index=1))\n")
    done = run(data)
    assert done.returncode == 2
    assert 'labels must be in [0, 3) or 1, but got [255]' in done.stderr
    for path in (data / 'labels').iterdir():
        label = np.array(Image.open(path))
        Image.fromarray(np.where(label == 255, 1, label)).save(path)
    done = run(data)
    assert done.returncode == 0, done.stderr
    assert 'warning: no pixel has box; 1 is void' in done.stdout
    mean = torch.load(data / 'W.pth', weights_only=True)['bias'].view(3, 16)
    assert not mean[1].any()
    assert mean[0].all()
    assert mean[2].all()


def test_a_folder_of_labels_alone_is_enough(data):
    from fit_dupsampling import load_labels
    from mmengine.config import Config

    config = data / 'config.py'
    config.write_text(config.read_text().replace(" ann_file='train.txt',", ''))
    assert not (data / 'images').exists()
    (dataset, _), classes = load_labels(Config.fromfile(config))
    assert (len(dataset), classes) == (4, 3)
    assert dataset[1]['gt_seg_map'].shape == (21, 24)
    for label in (data / 'labels').iterdir():
        label.unlink()
    (data / 'labels').rmdir()
    with pytest.raises(ValueError, match=r'fit_dupsampling: BaseSegDataset must have a folder of images or of labels, but got .*images and .*labels'):
        load_labels(Config.fromfile(config))


@pytest.mark.parametrize('spelling', ['scoped', 'class', 'subclass'])
def test_labels_are_read_as_training_reads_them(data, spelling):
    from fit_dupsampling import load_labels
    from mmengine.config import Config
    from mmseg.datasets.transforms import LoadAnnotations

    class Zero(LoadAnnotations):
        def transform(self, results):
            results = super().transform(results)
            results['gt_seg_map'] = results['gt_seg_map'] * 0
            return results

    cfg = Config.fromfile(data / 'config.py')
    step = {'scoped': 'mmseg.LoadAnnotations', 'class': LoadAnnotations, 'subclass': Zero}[spelling]
    for part in cfg.train_dataloader.dataset.dataset.datasets:
        part.pipeline[1] = dict(type=step)
    datasets, classes = load_labels(cfg)
    assert (len(datasets), classes) == (2, 3)
    assert (datasets[0][0]['gt_seg_map'].max() == 0) == (spelling == 'subclass')


def test_workers_change_nothing(data):
    """Label maps come in their order, whoever reads them."""
    fits = []
    for workers in (0, 1, 3):
        assert run(data, '--overwrite', '--num-workers', str(workers)).returncode == 0
        fits.append(torch.load(data / 'W.pth', weights_only=True))
    for fit in fits[1:]:
        assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(fit[key])) for key, value in fits[0].items() if not isinstance(value, str))


OWN = """
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from PIL import Image

@TRANSFORMS.register_module()
class ReadMine(BaseTransform):
    def transform(self, results):
        return dict(results, gt_seg_map=np.array(Image.open(results['seg_map_path'])) % 2, seg_fields=['gt_seg_map'])

@TRANSFORMS.register_module()
class MergeClasses(BaseTransform):
    def transform(self, results):
        return results
"""


def test_labels_of_a_loader_of_ones_own(data):
    """A loader that is no LoadAnnotations is run as in training, and nothing behind it."""
    (data / 'own_steps.py').write_text(OWN)
    config = data / 'config.py'
    before = config.read_text()
    config.write_text("custom_imports = dict(imports=['own_steps'])\n" + before.replace('LoadAnnotations', 'ReadMine'))
    environment = os.environ | dict(PYTHONPATH=os.pathsep.join([str(data), *sys.path]))
    done = run(data, env=environment)
    assert done.returncode == 0, done.stderr
    assert 'warning: no pixel has disc' in done.stdout  # labels are 0 and 1 there
    config.write_text(
        "custom_imports = dict(imports=['own_steps'])\n" + before.replace("dict(type='Rand", "dict(type='MergeClasses'), dict(type='Rand")
    )
    done = run(data, '--overwrite', env=environment)
    assert done.returncode == 0, done.stderr
    assert 'MergeClasses of the pipeline is left out; if it changes labels, do so in a subclass of LoadAnnotations' in done.stdout
