"""analyze_pyramid, visualize_pyramid and split_ade20k."""

import importlib
import json
import sys

import numpy as np
import pytest
import reference
import torch

pytest.importorskip('mmseg')
import analyze_pyramid
import split_ade20k
import visualize_pyramid
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope
from PIL import Image

VOID = 255


def main(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
    with DefaultScope.overwrite_default_scope('mmengine'):  # the tools set one
        importlib.import_module(name).main()


def labels_of(seed, shape=(20, 37)):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, [-(-edge // 6) for edge in shape]).repeat(6, 0).repeat(6, 1)[: shape[0], : shape[1]]
    label[rng.random(shape) < 0.05] = VOID
    return label


@pytest.mark.parametrize('void_rule', ['agree', 'strict'])
def test_analysis_equals_a_walk_over_cells(void_rule):
    strides, maps = (16, 8, 4), [labels_of(seed) for seed in range(3)]
    analysis = analyze_pyramid.Analysis(strides, 3, void_rule=void_rule)
    for label in maps:
        analysis.add(torch.from_numpy(label))
    report = analysis.report(['a', 'b', 'c'])

    pixels, predictions, unit, cells = np.zeros((3, 3), int), np.zeros(3, int), np.zeros(3, int), np.zeros(3, int)
    painted = [[] for _ in range(4)]  # one map a level and the fused one, each beside its labels
    for label in maps:
        label = np.pad(label, ((0, -label.shape[0] % 16), (0, -label.shape[1] % 16)), constant_values=VOID)
        _, unity = reference.pyramid_labels(label, strides, void_rule=void_rule)
        fused, done = np.full_like(label, VOID), np.zeros(label.shape, bool)
        for level, stride in enumerate(strides):
            alone = np.full_like(label, VOID)
            for row, column in np.ndindex(label.shape[0] // stride, label.shape[1] // stride):
                here = np.s_[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
                seen = label[here][label[here] != VOID]
                if not len(seen):
                    continue
                cells[level] += 1
                alone[here] = np.bincount(seen).argmax()
                is_unit = level == 2 or unity[level][row, column] == 1
                unit[level] += is_unit
                if is_unit and not done[here].any():
                    predictions[level] += 1
                    pixels[level] += np.bincount(seen, minlength=3)
                    fused[here], done[here] = alone[here], True
            painted[level].append((alone, label))
        painted[3].append((fused, label))

    def miou(pairs):
        predicted, label = (np.concatenate([pair[index].ravel() for pair in pairs]) for index in range(2))
        predicted, label = predicted[label != VOID], label[label != VOID]
        return 100 * np.mean([((predicted == c) & (label == c)).sum() / ((predicted == c) | (label == c)).sum() for c in range(3)])

    rows = list(report['levels'].values())
    assert [row['predictions'] for row in rows] == predictions.tolist()
    assert [row['pixels'] for row in rows] == pytest.approx(100 * pixels.sum(1) / pixels.sum(), abs=0.01)
    assert [row['unit_cells'] for row in rows[:2]] == pytest.approx(100 * unit[:2] / cells[:2], abs=0.01)
    assert rows[2]['unit_cells'] is None
    assert [row['oracle_miou'] for row in rows] == pytest.approx([miou(pairs) for pairs in painted[:3]], abs=0.01)
    assert report['fused_oracle_miou'] == pytest.approx(miou(painted[3]), abs=0.01)
    assert report['finest_cells'] == cells[2]
    assert report['labelled_pixels'] == pixels.sum()
    assert list(report['classes']['b'].values()) == pytest.approx(100 * pixels[:, 1] / pixels[:, 1].sum(), abs=0.01)


@pytest.fixture
def ade_like(tmp_path):
    """A data set with ADE20K's habit: label 0 is no class."""
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    for seed in range(2):
        label = (labels_of(seed, (40, 48)) + 1) % 256
        Image.fromarray(label.astype(np.uint8)).save(tmp_path / 'labels' / f'{seed}.png')
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)).save(tmp_path / 'images' / f'{seed}.jpg')
    data = dict(
        type='BaseSegDataset',
        data_root=str(tmp_path),
        metainfo=dict(classes=('a', 'b', 'c'), palette=[(255, 0, 0), (0, 255, 0), (0, 0, 255)]),
        reduce_zero_label=True,
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True), dict(type='PackSegInputs')],
    )
    norm_cfg = dict(type='BN')
    head = dict(
        type='PyramidRepresentationHead', in_channels=8, in_index=0, channels=4, num_classes=3, strides=(16, 8, 4), context=None, norm_cfg=norm_cfg
    )
    preprocessor = dict(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True, size_divisor=16, test_cfg=dict(size_divisor=16))
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(preprocessor, type='SegDataPreProcessor'),
        backbone=dict(type='ResNet', depth=18, base_channels=8, norm_cfg=norm_cfg),
        decode_head=head,
        test_cfg=dict(mode='whole'),
    )
    config = Config(
        dict(model=model, train_dataloader=dict(dataset=dict(type='RepeatDataset', times=3, dataset=data)), test_dataloader=dict(dataset=data))
    )
    config.custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
    config.dump(tmp_path / 'config.py')
    return tmp_path


def test_analyze_reads_labels_as_the_data_set_says(ade_like, monkeypatch, capsys):
    main(monkeypatch, 'analyze_pyramid', ade_like / 'config.py', '--strides', 16, 8, 4, '--out', ade_like / 'out.json')
    report = json.loads((ade_like / 'out.json').read_text())
    assert report['labelled_pixels'] == sum((labels_of(seed, (40, 48)) != VOID).sum() for seed in range(2))
    assert 'oracle mIoU' in capsys.readouterr().out
    workers = ('--strides', 16, 8, 4, '--num-workers', 2, '--out', ade_like / 'workers.json')
    main(monkeypatch, 'analyze_pyramid', ade_like / 'config.py', *workers)
    assert (ade_like / 'workers.json').read_text() == (ade_like / 'out.json').read_text()
    with pytest.raises(SystemExit):
        main(monkeypatch, 'analyze_pyramid', ade_like / 'config.py', '--out', ade_like / 'out.json')
    assert 'out must be a new file' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(monkeypatch, 'analyze_pyramid', ade_like / 'config.py', '--strides', 16, 4)
    assert 'strides must be two or more, each half of the one before' in capsys.readouterr().err


def save_weights(folder, **more):
    from mmseg.registry import MODELS

    config = Config.fromfile(folder / 'config.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config.model)
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=config.test_dataloader.dataset.metainfo.to_dict()), **more), folder / 'weights.pth'
    )


def test_analyze_takes_void_from_the_head_and_refuses_other_labels(ade_like, monkeypatch, capsys):
    cfg = Config.fromfile(ade_like / 'config.py')
    cfg.model.decode_head.ignore_index = 0
    cfg.dump(ade_like / 'config.py')
    with pytest.raises(SystemExit):
        main(monkeypatch, 'analyze_pyramid', ade_like / 'config.py')
    assert 'analyze_pyramid: labels must be in [0, 3) or 0, but got [255]' in capsys.readouterr().err
    labels = [labels_of(seed, (40, 48)) % VOID for seed in range(2)]  # void is 0
    for seed, label in enumerate(labels):
        Image.fromarray((label + 1).astype(np.uint8)).save(ade_like / 'labels' / f'{seed}.png')
    main(monkeypatch, 'analyze_pyramid', ade_like / 'config.py', '--strides', 16, 8, 4, '--out', ade_like / 'out.json')
    assert json.loads((ade_like / 'out.json').read_text())['labelled_pixels'] == sum((label != 0).sum() for label in labels)
    assert 'warning: no pixel has a; 0 is void' in capsys.readouterr().out


def test_analyze_sees_every_data_set_and_names_absent_classes(ade_like, monkeypatch, capsys):
    cfg = Config.fromfile(ade_like / 'config.py')
    one = cfg.test_dataloader.dataset
    one.metainfo.update(classes=('a', 'b', 'c', 'never'), palette=[(0, 0, 0)] * 4)
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, one])
    cfg.dump(ade_like / 'config.py')
    main(monkeypatch, 'analyze_pyramid', ade_like / 'config.py', '--strides', 16, 8, 4, '--out', ade_like / 'out.json')
    assert 'warning: no pixel has never; 255 is void' in capsys.readouterr().out
    report = json.loads((ade_like / 'out.json').read_text())
    assert report['labelled_pixels'] == 2 * sum((labels_of(seed, (40, 48)) != VOID).sum() for seed in range(2))
    for path in (ade_like / 'labels').iterdir():
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(path)  # reduce_zero_label makes them void
    with pytest.raises(SystemExit):
        main(monkeypatch, 'analyze_pyramid', ade_like / 'config.py')
    assert 'labels must hold at least one labelled pixel, but got 4 maps of nothing but 255' in capsys.readouterr().err


def test_visualize_writes_a_picture_once(ade_like, monkeypatch, capsys):
    save_weights(ade_like, message_hub=HistoryBuffer())  # as mmengine's checkpoints have
    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', raising=False)
    arguments = [ade_like / name for name in ('config.py', 'weights.pth', 'images/0.jpg', 'out.png')]
    main(monkeypatch, 'visualize_pyramid', *arguments, '--label', ade_like / 'labels' / '0.png')
    with Image.open(ade_like / 'out.png') as picture:
        assert min(picture.size) > 400
    with pytest.raises(SystemExit):
        main(monkeypatch, 'visualize_pyramid', *arguments)
    assert 'out must be a new file' in capsys.readouterr().err


@pytest.mark.parametrize('ignore_index', [255, 0])
def test_visualize_reads_labels_as_the_data_set_says_and_void_is_no_class(ade_like, ignore_index):
    save_weights(ade_like)
    model = visualize_pyramid.load_model(ade_like / 'config.py', ade_like / 'weights.pth', 'cpu')
    model.decode_head.ignore_index = ignore_index
    file = np.asarray(Image.open(ade_like / 'labels' / '0.png')).astype(int)
    label = visualize_pyramid.ground_truth(model, ade_like / 'labels' / '0.png')
    expected = np.where(file == 0, 255, file - 1)  # reduce_zero_label
    assert np.array_equal(label, np.where(expected == ignore_index, -1, expected))
    assert -1 in label


def test_visualize_pads_as_the_data_preprocessor_does(ade_like):
    save_weights(ade_like)
    model = visualize_pyramid.load_model(ade_like / 'config.py', ade_like / 'weights.pth', 'cpu')
    image, semantic, unity, level = visualize_pyramid.predict(model, ade_like / 'images' / '0.jpg')
    np.testing.assert_array_equal(image, np.asarray(Image.open(ade_like / 'images' / '0.jpg')))
    assert [labels.shape for labels in semantic] == [(3, 3), (6, 6), (12, 12)]
    assert [maps.shape for maps in unity] == [(3, 3), (6, 6)]
    assert level.shape == (12, 12)


def test_visualize_refuses_other_heads(ade_like):
    config = Config.fromfile(ade_like / 'config.py')
    config.model.decode_head.supervision = 'finest'
    config.dump(ade_like / 'config.py')
    save_weights(ade_like)
    with pytest.raises(ValueError, match='the decode head must be a PyramidRepresentationHead with supervision in'):
        visualize_pyramid.load_model(ade_like / 'config.py', ade_like / 'weights.pth', 'cpu')


def test_split_is_seeded_and_whole(tmp_path, monkeypatch, capsys):
    folder = tmp_path / 'images' / 'training'
    folder.mkdir(parents=True)
    names = {f'ADE_train_{index:08d}' for index in range(25)}
    for name in names:
        (folder / f'{name}.jpg').touch()
    with pytest.raises(SystemExit):
        main(monkeypatch, 'split_ade20k', tmp_path)
    assert 'images/training must hold 20210 .jpg files, but got 25' in capsys.readouterr().err
    main(monkeypatch, 'split_ade20k', tmp_path, '--any-number')
    lists = [(tmp_path / name).read_text().split() for name in ('train_16k.txt', 'train_4k.txt')]
    assert [len(part) for part in lists] == [20, 5]
    assert set(lists[0]) | set(lists[1]) == names
    with pytest.raises(SystemExit):
        main(monkeypatch, 'split_ade20k', tmp_path, '--any-number')
    assert 'the lists must be new' in capsys.readouterr().err
    main(monkeypatch, 'split_ade20k', tmp_path, '--any-number', '--overwrite')
    assert [(tmp_path / name).read_text().split() for name in ('train_16k.txt', 'train_4k.txt')] == lists
    main(monkeypatch, 'split_ade20k', tmp_path, '--any-number', '--overwrite', '--seed', 1)
    assert (tmp_path / 'train_4k.txt').read_text().split() != lists[1]


def test_split_sizes():
    assert [len(part) for part in split_ade20k.split([f'{index:05d}' for index in range(20210)], 0)] == [16168, 4042]


@pytest.mark.parametrize('tool', ['analysis_tools/analyze_pyramid', 'analysis_tools/visualize_pyramid', 'dataset_converters/split_ade20k'])
def test_help_is_the_manual(tool, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        main(monkeypatch, tool.split('/')[1], '--help')
    assert stop.value.code == 0
    assert f'python tools/{tool}.py' in capsys.readouterr().out
