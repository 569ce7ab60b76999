"""The pipeline through which the tools read an image."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmpool_ext.visualization.pipeline import image_pipeline

STEPS = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='Resize', scale=(8, 4))]
LEAF = dict(type='Any', pipeline=STEPS)


@pytest.mark.parametrize(
    'loaders',
    [
        dict(test_dataloader=dict(dataset=LEAF), val_dataloader=None),
        dict(test_dataloader=None, val_dataloader=dict(dataset=LEAF)),
        dict(val_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=LEAF), 'other']))),
    ],
    ids=['test', 'val', 'wrapped'],
)
def test_reads_an_image_without_annotations(tmp_path, loaders):
    pytest.importorskip('mmcv.transforms')
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(tmp_path / 'image.png')
    pipeline = image_pipeline(Config(loaders))
    assert len(pipeline.transforms) == 2
    assert pipeline(dict(img_path=str(tmp_path / 'image.png')))['img'].shape == (4, 8, 3)


@pytest.mark.parametrize('spelling', ['scoped', 'class', 'subclass'])
def test_drops_annotations_however_they_are_spelt(tmp_path, spelling):
    transforms = pytest.importorskip('mmseg.datasets.transforms')
    mmcv = pytest.importorskip('mmcv.transforms')
    step = {'scoped': 'mmseg.LoadAnnotations', 'class': transforms.LoadAnnotations, 'subclass': type('Own', (transforms.LoadAnnotations,), {})}
    steps = [dict(type=mmcv.LoadImageFromFile), dict(type=step[spelling]), dict(type=mmcv.Resize, scale=(8, 4))]
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(tmp_path / 'image.png')
    pipeline = image_pipeline(Config(dict(test_dataloader=dict(dataset=dict(type='Any', pipeline=steps)))))
    assert pipeline(dict(img_path=str(tmp_path / 'image.png')))['img'].shape == (4, 8, 3)


@pytest.mark.parametrize('cfg', [{}, dict(test_dataloader=None, val_dataloader=None), dict(test_dataloader=dict(dataset=dict(type='Any')))])
def test_no_loader_is_an_error_that_names_both(cfg):
    with pytest.raises(ValueError, match=r'must have a test_dataloader or val_dataloader whose dataset has a pipeline, but got .*test_dataloader'):
        image_pipeline(Config(cfg))
