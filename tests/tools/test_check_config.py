"""The dry run over six generated layouts, and a line for each of the faults that are planted into them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
import check_config
from mmengine.config import Config
from mmengine.model import BaseModule, PretrainedInit

CONFIGS = Path(__file__).parents[2] / 'configs'
SIZE = (60, 80)
MODEL = """
_base_ = '{base}'
model = dict(
    _delete_=True,
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64), pad_val=0, seg_pad_val=255),
    backbone=dict(type='ResNet', depth=18, base_channels=8, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,)),
    decode_head=dict(type='FCNHead', in_channels=16, channels=8, num_classes={classes}, num_convs=1),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
"""


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)


def write_label(path, low, high):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(1).integers(low, high, SIZE, dtype=np.uint8)).save(path)


def write_list(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(names) + '\n')


def voc(root):
    root = root / 'data/VOCdevkit/VOC2012'
    for name in 'ab':
        write_image(root / f'JPEGImages/{name}.jpg')
        for folder in ('SegmentationClass', 'SegmentationClassAug'):
            write_label(root / f'{folder}/{name}.png', 0, 21)
    for split in ('train', 'aug', 'val', 'test'):
        write_list(root / f'ImageSets/Segmentation/{split}.txt', 'ab')
    return 'ppool/fcn_maxpool-vgg16_4xb5-10k_voc12aug-321x321.py', 21


def cityscapes(root):
    for split in ('train', 'val'):
        write_image(root / f'data/cityscapes/leftImg8bit/{split}/x/x_0_leftImg8bit.png')
        write_label(root / f'data/cityscapes/gtFine/{split}/x/x_0_gtFine_labelTrainIds.png', 0, 19)
    return 'ppool/fcn_maxpool-vgg16_4xb2-20k_cityscapes-512x1024.py', 19


def ade20k(root):
    for split in ('training', 'validation'):
        write_image(root / f'data/ade/ADEChallengeData2016/images/{split}/a.jpg')
        write_label(root / f'data/ade/ADEChallengeData2016/annotations/{split}/a.png', 0, 151)
    return 'ppool/fcn_maxpool-vgg16_4xb4-40k_ade20k-512x512.py', 150


def pascal_context(root):
    root = root / 'data/VOCdevkit/VOC2010'
    write_image(root / 'JPEGImages/a.jpg')
    write_label(root / 'SegmentationClassContext/a.png', 0, 60)
    for split in ('train', 'val'):
        write_list(root / f'ImageSets/SegmentationContext/{split}.txt', 'a')
    return 'dupsampling/dupsampling_x65-os16-mfb1u16c3_2xb16-40k_pascal-context-480x480.py', 60


def coco_stuff(root):
    for split in ('train2014', 'test2014'):
        write_image(root / f'data/coco_stuff10k/images/{split}/a.jpg')
        write_label(root / f'data/coco_stuff10k/annotations/{split}/a_labelTrainIds.png', 0, 172)
    return 'pyramid/pyramid_hr48_4xb4-60k_coco-stuff10k-512x512.py', 171


def coco(root):
    from mmdet.datasets import CocoDataset

    categories = [dict(id=index + 1, name=name) for index, name in enumerate(CocoDataset.METAINFO['classes'])]
    box = dict(id=1, image_id=1, category_id=3, bbox=[5, 6, 40, 30], area=1200, iscrowd=0)
    images = [dict(id=1, file_name='a.jpg', height=SIZE[0], width=SIZE[1])]
    (root / 'data/coco/annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        write_image(root / f'data/coco/{split}2017/a.jpg')
        found = dict(images=images, annotations=[box], categories=categories)
        (root / f'data/coco/annotations/instances_{split}2017.json').write_text(json.dumps(found))
    return 'lip/faster-rcnn_lip-r50_fpn_2x_coco.py', None


LAYOUTS = dict(VOC=voc, Cityscapes=cityscapes, ADE20K=ade20k, Context=pascal_context, CocoStuff=coco_stuff, COCO=coco)
SMALL = ['train_dataloader.dataset.pipeline.2.scale=(64,64)', 'val_dataloader.dataset.pipeline.1.scale=(64,64)']
SMALL += ['test_dataloader.dataset.pipeline.1.scale=(64,64)']


@pytest.fixture
def laid_out(tmp_path, monkeypatch):
    """Lay a data set out in an empty folder, which becomes the current one; give the path of a config for it."""
    monkeypatch.chdir(tmp_path)

    def lay_out(name):
        base, classes = LAYOUTS[name](tmp_path)
        if classes is None:
            return str(CONFIGS / base)
        Path('config.py').write_text(MODEL.format(base=CONFIGS / base, classes=classes))
        return 'config.py'

    return lay_out


@pytest.mark.parametrize('name', LAYOUTS)
def test_a_complete_layout_passes(laid_out, name, capsys):
    config = laid_out(name)
    options = ['--no-weights', '--cfg-options', *SMALL] if name == 'COCO' else []
    assert check_config.main([config, '--images', '1', '--device', 'cpu', *options]) == 0, capsys.readouterr().out
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith('ok ')]
    assert len(said) >= 8
    assert any('labels of the first images are in the range' in line for line in said)
    assert any('a step on 2 images takes' in line for line in said)
    assert any('predicted and evaluated 1 images: ' in line for line in said)
    assert any(line.startswith('ok    schedule: ') and ' hours at this speed' in line for line in said)


def relabel(path, value):
    label = np.array(Image.open(path))
    label[3, 4] = value
    Image.fromarray(label).save(path)


def edit_json(path, change):
    found = json.loads(Path(path).read_text())
    change(found)
    Path(path).write_text(json.dumps(found))


VOC12 = 'data/VOCdevkit/VOC2012'
SEE = r'; see configs/(dupsampling|ppool)/README.md, "Data preparation", VOC 2012 \+ SBD'
FAULTS = {
    'a label is missing': ('VOC', lambda: Path(VOC12, 'SegmentationClassAug/b.png').unlink(), f"seg_map_path must be a file, but got '.*b.png'{SEE}"),
    'an image is missing': ('VOC', lambda: Path(VOC12, 'JPEGImages/b.jpg').unlink(), f"img_path must be a file, but got '.*b.jpg'{SEE}"),
    'a label is 200': ('VOC', lambda: relabel(f'{VOC12}/SegmentationClass/a.png', 200), r'labels of .*a.png must be 0 to 20 or 255, but got \[200\]'),
    'a label has another size': (
        'VOC',
        lambda: Image.new('L', (80, 61)).save(f'{VOC12}/SegmentationClass/a.png'),
        r'a.png must have the size of its image, \(80, 60\), but got \(80, 61\)',
    ),
    'a list is missing': ('VOC', lambda: Path(VOC12, 'ImageSets/Segmentation/val.txt').unlink(), f"val: ann_file must be a file, but got '.*'{SEE}"),
    'a folder is missing': ('VOC', lambda: shutil.rmtree(f'{VOC12}/SegmentationClassAug'), f"seg_map_path must be a folder, but got '.*Aug'{SEE}"),
    'a list is empty': (
        'VOC',
        lambda: Path(VOC12, 'ImageSets/Segmentation/val.txt').write_text(''),
        'val: the data set must have images of known classes, but got none',
    ),
    'nothing is there': (
        'Cityscapes',
        lambda: shutil.rmtree('data'),
        'train: data_root must be a folder, but got .*; see configs/.*, "Data preparation", Cityscapes',
    ),
    'an image is no image': (
        'VOC',
        lambda: Path(VOC12, 'JPEGImages/a.jpg').write_text('x'),
        'train: opening .*a.jpg must run, but got UnidentifiedImageError',
    ),
    'the annotations are cut off': (
        'COCO',
        lambda: Path('data/coco/annotations/instances_train2017.json').write_text('{"images": ['),
        'train: the data set must be readable, but got JSONDecodeError',
    ),
    'no category is known': (
        'COCO',
        lambda: edit_json('data/coco/annotations/instances_train2017.json', lambda found: found.update(categories=[dict(id=3, name='lattice')])),
        'train: the data set must have images of known classes, but got none',
    ),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_in_the_data_is_one_line(laid_out, fault, capsys):
    name, plant, message = FAULTS[fault]
    config = laid_out(name)
    plant()
    assert check_config.main([config, '--images', '2', '--device', 'cpu', '--no-weights']) == 1
    assert_fault(capsys, message)


def assert_fault(capsys, message):
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('FAULT ')]
    assert len(lines) == 1
    assert re.search(message, lines[0]), lines[0]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['load_from=missing.pth'], "checkpoint must be a file, but got 'missing.pth'; the README of the config says where it comes from"),
        (['load_from=other.pth'], 'checkpoint other.pth must fit model, but got no tensor of its name and shape among'),
        (['load_from=broken.pth'], 'checkpoint broken.pth must be readable, but got '),
        (
            ['model.decode_head.num_classes=19'],
            r"num_classes must be the 21 classes of the data set everywhere, but got {'model.decode_head.num_classes': 19}",
        ),
        (['model.decode_head.ignore_index=0'], 'data_preprocessor.seg_pad_val must be ignore_index of the decode head, 0, but got 255'),
        (
            ['model.decode_head.ignore_index=0', 'model.data_preprocessor.seg_pad_val=0'],
            'val_evaluator: ignore_index of IoUMetric must be ignore_index of the decode head, 0, but got 255',
        ),
        (['model.decode_head.in_channels=24'], 'a training step must run, but got RuntimeError: '),
        (['optim_wrapper.optimizer.lr=1e30'], 'the loss of the second step must be finite, but got '),
        (['val_evaluator.iou_metrics="[mIoX]"'], 'val: prediction and evaluation must run, but got '),
    ],
)
def test_a_fault_in_the_config_is_one_line(laid_out, options, message, capsys):
    config = laid_out('VOC')
    torch.save({'unrelated.weight': torch.zeros(3)}, 'other.pth')
    Path('broken.pth').write_bytes(b'not a checkpoint')
    assert check_config.main([config, '--images', '1', '--device', 'cpu', '--cfg-options', *options]) == 1
    assert_fault(capsys, message)


def test_void_has_one_label_in_training_padding_and_evaluation():
    def config(step={}, **head):
        dataset = dict(type='RepeatDataset', dataset=dict(pipeline=[dict(type='RandomRotate', **step)]))
        metrics = [dict(type='mmseg.IoUMetric', ignore_index=7), dict(type='PyramidLevelMetric', ignore_index=7)]
        model = dict(decode_head=[dict(), dict(head)])
        return check_config.Config(dict(model=model, train_dataloader=dict(dataset=dataset), val_evaluator=metrics))

    assert check_config.check_void(config(ignore_index=7)) == ['void is 7 in training, padding and evaluation']
    assert check_config.check_void(check_config.Config(dict(model=dict(type='FasterRCNN')))) == []
    with pytest.raises(check_config.Fault, match=r'seg_pad_val of RandomRotate in the training pipeline must be ignore_index of .*, 7, but got 255'):
        check_config.check_void(config(dict(seg_pad_val=255), ignore_index=7))
    with pytest.raises(check_config.Fault, match='val_evaluator: ignore_index of IoUMetric must be ignore_index of the decode head, 255, but got 7'):
        check_config.check_void(config())


def test_a_checkpoint_that_fits_in_part_is_counted(laid_out, capsys):
    from mmseg.registry import MODELS
    from mmseg.utils import register_all_modules

    config = laid_out('VOC')
    register_all_modules()
    model = MODELS.build(check_config.Config.fromfile(config).model)
    weights = model.state_dict()
    weights.pop('decode_head.conv_seg.bias')
    weights['backbone.conv1.weight'] = torch.zeros(2, 2)
    weights['unrelated'] = torch.zeros(1)
    torch.save(dict(state_dict=weights), 'part.pth')
    assert check_config.main([config, '--images', '1', '--device', 'cpu', '--cfg-options', 'load_from=part.pth']) == 0
    assert '1 are not, 1 have another shape; 1 of the checkpoint are not used' in capsys.readouterr().out


@pytest.mark.parametrize('type', ['Pretrained', PretrainedInit])
def test_checkpoints_of_init_cfg_are_tried(type, tmp_path):
    torch.save(dict(weight=torch.zeros(2, 2)), tmp_path / 'part.pth')
    model = BaseModule(init_cfg=dict(type=type, checkpoint=str(tmp_path / 'part.pth')))
    model.add_module('linear', torch.nn.Linear(2, 2))
    with pytest.raises(check_config.Fault, match=r'part\.pth must fit model, but got no tensor of its name and shape among 2'):
        check_config.check_checkpoints(Config(dict()), model)


@pytest.mark.parametrize(
    ('path', 'config', 'row'),
    [
        ('data/VOCdevkit/VOC2012', 'ppool/fcn_ppool-vgg16_4xb5-10k_voc12aug-321x321', 'ppool/README.md, "Data preparation", VOC 2012 + SBD'),
        ('data/ade/ADEChallengeData2016', 'pyramid/pyramid_hr48_4xb4-150k_ade20k-512x512', 'pyramid/README.md, "Data preparation", ADE20K'),
        (
            'data/ade/ADEChallengeData2016/train_16k.txt',
            'pyramid/pyramid-a_hr32_4xb4-150k_ade20k-16k-512x512',
            'pyramid/README.md, "Data preparation", ADE20K, 16K and 4K images',
        ),
        ('data/coco', 'lip/faster-rcnn_lip-r50_fpn_2x_coco', 'lip/README.md, "Data preparation", COCO'),
        ('data/cityscapes/gtFine/val', 'mine/config', 'dupsampling/README.md, "Data preparation", Cityscapes'),
        ('elsewhere', 'mine/config', ''),
        ('', 'mine/config', ''),
    ],
)
def test_readme_of_the_own_paper_is_named(path, config, row):
    said = check_config.where_to_get(path, str(CONFIGS / f'{config}.py'))
    assert said == (f'; see configs/{row}' if row else '')
