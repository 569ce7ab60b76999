"""From configs, checkpoints and a photograph to one picture."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

visualize_lip = pytest.importorskip('visualize_lip')
SHAPES = Path(__file__).parents[2] / 'configs' / 'shapes'
NO_LOADERS = object()  # stands for a config whose loaders are None
CLASSIFIER = """
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(type='LIPResNet', depth=14, base_channels=4, init_cfg=None, {}), head=dict(in_channels=128, num_classes=5))
"""


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(path)
    return path


def run(monkeypatch, *arguments):
    monkeypatch.setattr('sys.argv', ['visualize_lip.py', *map(str, arguments)])
    visualize_lip.main()


def test_detectors(monkeypatch, tmp_path, photo):
    """A detector with LIP from a checkpoint beside its untrained twin without and a single-stage one."""
    pytest.importorskip('mmdet')
    lip, strided = (SHAPES / f'faster-rcnn_{network}_fpn_1xb8-400i_shapes-160x160.py' for network in ('lip-r14', 'r14'))
    single = tmp_path / 'retinanet.py'
    single.write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\ncustom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)\n"
        "model = dict(backbone=dict(type='LIPResNet', depth=14, base_channels=4, init_cfg=None), neck=dict(in_channels=[16, 32, 64, 128]))\n"
    )
    model = visualize_lip.load_model(lip)
    torch.nn.init.normal_(model.backbone.layer2[0].pool2.logit.conv.weight)
    checkpoint = tmp_path / 'lip.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=('box', 'disc', 'sign', 'lattice')))), checkpoint)
    networks = ['--network', 'LIP', lip, checkpoint, '--network', 'strided', strided, '--network', 'single stage', single]
    out = tmp_path / 'out.png'
    arguments = [photo, out, *networks, '--class', 'sign', '--location', '80', '60', '--location', '10', '100']
    run(monkeypatch, *arguments)
    assert min(Image.open(out).size) > 1000
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)  # OUT is there
    figure = visualize_lip.visualize({'LIP': visualize_lip.load_model(lip, checkpoint)}, photo, [(80, 60)], 'sign', num_channels=2)
    assert figure.subfigs[0].axes[0].get_ylabel() == 'class activation: sign'
    rows = [axes.get_ylabel() for axes in figure.subfigs[1].axes if axes.get_ylabel()]
    expected = ['stem_pool'] + [f'layer{stage}.0.{pool}' for stage in (2, 3, 4) for pool in ('pool2', 'downsample_pool')]
    assert rows == expected


def test_classifiers_and_the_peak(monkeypatch, tmp_path, photo):
    pytest.importorskip('mmpretrain')
    networks = {}
    for name, arguments in dict(LIP='', average="pool=dict(type='AveragePool2d')", strided='stage_with_lip=(False,) * 4, stem_lip=False').items():
        (tmp_path / f'{name}.py').write_text(CLASSIFIER.format(arguments))
        networks[name] = visualize_lip.load_model(tmp_path / f'{name}.py')
    figure = visualize_lip.visualize(networks, photo, class_name='3', num_channels=1)
    top, bottom = figure.subfigs
    assert [axes.get_title() for axes in top.axes[:4]] == ['image', 'LIP', 'average', 'strided']
    assert top.axes[0].get_ylabel() == 'class activation: class 3'
    fields = [axes.images[0].get_array() for axes in top.axes[5:]]
    assert all(field.shape == (224, 224) and field.max() > 0 for field in fields)
    assert not np.allclose(fields[0], fields[2])
    assert len(bottom.axes) == 7 * (3 + 2)  # image, mean, one channel; two colour bars
    with pytest.raises(ValueError, match=r"visualize_lip: class must be an index or one of the first checkpoint: \(\), but got 'koala'"):
        visualize_lip.visualize(networks, photo, class_name='koala')


@pytest.mark.parametrize(
    ('network', 'message'),
    [
        (['LIP'], r'visualize_lip: network must be NAME CONFIG \[CHECKPOINT\], but got LIP'),
        (['LIP', SHAPES / 'faster-rcnn_lip-r14_fpn_1xb8-400i_shapes-160x160.py', 'nowhere.pth'], 'nowhere.pth can not be found'),
        (['LIP', NO_LOADERS], 'must have a test_dataloader or val_dataloader whose dataset has a pipeline, but got'),
        (['FCN', SHAPES / 'fcn_r18_1xb8-400i_shapes-160x160.py'], "must have a default_scope in .*, but got 'mmseg'"),
    ],
)
def test_bad_networks(monkeypatch, capsys, tmp_path, photo, network, message):
    pytest.importorskip('mmseg')
    pytest.importorskip('mmdet')
    config = tmp_path / 'no_loaders.py'
    base = SHAPES / 'faster-rcnn_lip-r14_fpn_1xb8-400i_shapes-160x160.py'
    config.write_text(f'_base_ = {str(base)!r}\ntest_dataloader = None\nval_dataloader = None\n')
    with pytest.raises(SystemExit):
        run(monkeypatch, photo, tmp_path / 'out.png', '--network', *(config if part is NO_LOADERS else part for part in network))
    assert re.search(message, capsys.readouterr().err)


def test_checkpoint_of_another_network(tmp_path):
    pytest.importorskip('mmdet')
    torch.save(dict(state_dict=dict(weight=torch.ones(1)), meta={}), tmp_path / 'other.pth')
    with pytest.raises(RuntimeError, match='unexpected key'):
        visualize_lip.load_model(SHAPES / 'faster-rcnn_r14_fpn_1xb8-400i_shapes-160x160.py', tmp_path / 'other.pth')
