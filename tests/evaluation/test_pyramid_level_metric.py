import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import METRICS
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import nn

import mmpool_ext  # noqa: F401
from mmpool_ext.evaluation.pyramid_encoder_decoder import PyramidEncoderDecoder

VOID, CLASSES = 255, ('a', 'b', 'c', 'never seen')
HEAD = dict(type='PyramidRepresentationHead', in_channels=6, channels=5, num_classes=3, strides=(16, 8, 4), norm_cfg=dict(type='BN'), context=None)


class Stride4(BaseModule):
    """The smallest backbone: four strides, one convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=4, padding=1)

    def forward(self, x):
        return (self.conv(x),)


def build(segmentor=PyramidEncoderDecoder, head=HEAD, mode='whole'):
    torch.manual_seed(0)
    model = segmentor(dict(type=Stride4), head, train_cfg={}, test_cfg=ConfigDict(mode=mode, crop_size=(16, 16), stride=(8, 8)))
    return model.eval()


def iou_of_class(pairs, index):
    """IoU of a class in percent, NaN where it does not occur."""
    both = sum(((p == index) & (y == index)).sum() for p, y in pairs)
    either = sum(((p == index) | (y == index)).sum() for p, y in pairs)
    return 100 * both / either if either else np.nan


def iou_by_loops(pairs):
    """Mean over classes that occur, in percent."""
    values = [iou_of_class(pairs, index) for index in range(len(CLASSES))]
    return np.nan if np.isnan(values).all() else np.nanmean(values)


@pytest.mark.parametrize('per_class', [False, True])
def test_metric_equals_the_loops(per_class):
    rng = np.random.default_rng(0)
    label, fused = rng.integers(0, 3, (2, 2, 6, 7))
    label[rng.random(label.shape) < 0.1] = VOID
    levels, group = rng.integers(0, 3, (2, 3, 6, 7)), rng.integers(0, 2, (2, 6, 7))  # no pixel is left to level 3
    metric = METRICS.build(dict(type='PyramidLevelMetric', per_class=per_class))
    metric.dataset_meta = dict(classes=CLASSES)
    for image in range(2):
        maps = dict(pred_sem_seg=fused[image][None], gt_sem_seg=label[image][None], pyramid_sem_seg=levels[image], pyramid_level=group[image][None])
        metric.process({}, [{name: dict(data=torch.from_numpy(value)) for name, value in maps.items()}])
    got = metric.evaluate(2)
    valid = label != VOID
    expected = dict(mIoU=iou_by_loops([(fused[valid], label[valid])]))
    for by in range(3):
        expected[f'mIoU_level{by + 1}'] = iou_by_loops([(levels[:, by][valid], label[valid])])
        expected[f'share_level{by + 1}'] = 100 * (group[valid] == by).mean()
        for on in range(3):
            here = valid & (group == on)
            expected[f'mIoU_level{by + 1}_on{on + 1}'] = iou_by_loops([(levels[:, by][here], label[here])])
    if per_class:
        for index, name in enumerate(CLASSES):
            for where, predicted in (('IoU', fused), *((f'IoU_level{by + 1}', levels[:, by]) for by in range(3))):
                expected[f'{where}/{name}'] = iou_of_class([(predicted[valid], label[valid])], index)
    expected = {f'pyramid/{name}': value for name, value in expected.items()}
    assert got == pytest.approx(expected, abs=0.01, nan_ok=True)
    assert np.isnan(got['pyramid/mIoU_level1_on3'])


@pytest.mark.parametrize(('wrong', 'ignore_index'), [(4, 255), (-1, 255), (255, 0)])
def test_a_label_that_is_no_class_is_an_error(wrong, ignore_index):
    """It would count as a class of the next level."""
    metric = METRICS.build(dict(type='PyramidLevelMetric', ignore_index=ignore_index))
    metric.dataset_meta = dict(classes=CLASSES)
    map_of = lambda value, levels=1: dict(data=torch.full((levels, 2, 2), value))  # noqa: E731
    sample = dict(pred_sem_seg=map_of(0), gt_sem_seg=map_of(wrong), pyramid_sem_seg=map_of(0, 2), pyramid_level=map_of(0))
    with pytest.raises(ValueError, match=rf'PyramidLevelMetric: labels must be 0 to 3 or ignore_index {ignore_index}, but got \[{wrong}\]'):
        metric.process({}, [sample])


def test_metric_names_the_model_that_it_needs():
    metric = METRICS.build(dict(type='PyramidLevelMetric'))
    metric.dataset_meta = dict(classes=CLASSES)
    sample = dict(pred_sem_seg=dict(data=torch.zeros(1, 4, 4)), gt_sem_seg=dict(data=torch.zeros(1, 4, 4)))
    with pytest.raises(ValueError, match=r"must have a pyramid_level, but got \['gt_sem_seg', 'pred_sem_seg'\]; set model.type="):
        metric.process({}, [sample])


@pytest.mark.parametrize(('supervision', 'fuse_probabilities'), [('tp', False), ('tp', True), ('auxiliary', False)])
def test_segmentor_predicts_what_the_plain_one_does_and_keeps_the_levels(supervision, fuse_probabilities):
    head = dict(HEAD, supervision=supervision, fuse_probabilities=fuse_probabilities)
    model, plain = build(head=head), build(EncoderDecoder, head)
    plain.load_state_dict(model.state_dict())
    image = torch.randn(2, 3, 40, 36)

    def samples():
        meta = dict(img_shape=(38, 36), ori_shape=(19, 18), pad_shape=(40, 36), padding_size=[0, 0, 0, 2], flip=True, flip_direction='horizontal')
        return [SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=torch.zeros(1, 19, 18).long())) for _ in image]

    with torch.no_grad():
        got, expected = model.predict(image, samples()), plain.predict(image, samples())
        assert torch.equal(model.predict(image)[0].pred_sem_seg.data, plain.predict(image)[0].pred_sem_seg.data)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
        assert one.pyramid_sem_seg.data.shape == (3, 19, 18)
        assert one.pyramid_level.data.shape == (1, 19, 18)
    if supervision == 'auxiliary':
        assert (got[0].pyramid_level.data == 2).all()
        assert torch.equal(got[0].pyramid_sem_seg.data[2:], got[0].pred_sem_seg.data)


@pytest.mark.parametrize(('bias', 'level'), [(50.0, 0), (-50.0, 2)])
def test_level_map_follows_the_unity_pyramid(bias, level):
    model = build()
    with torch.no_grad():
        for conv in model.decode_head.unity_head.convs:
            conv.bias.fill_(bias)
        sample = model.predict(torch.randn(1, 3, 32, 32))[0]
    assert (sample.pyramid_level.data == level).all()
    assert torch.equal(sample.pyramid_sem_seg.data[level], sample.pred_sem_seg.data[0])


def test_bad_models():
    with pytest.raises(ValueError, match=r"test_cfg.mode must be 'whole', but got 'slide'"):
        build(mode='slide')
    with pytest.raises(ValueError, match='decode_head must be a PyramidRepresentationHead with a classifier at every level'):
        build(head=dict(HEAD, supervision='finest'))
