"""Ground truth as the network's input."""

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample


def batch(*sizes):
    torch.manual_seed(0)
    labels = [torch.randint(0, 3, (1, *size)) for size in sizes]
    labels[0][0, 0, :2] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=tuple(label.shape[1:]))) for label in labels]
    return dict(inputs=[torch.zeros(3, *size, dtype=torch.uint8) for size in sizes], data_samples=samples)


@pytest.mark.parametrize('training', [False, True])
def test_inputs_are_the_one_hot_labels(training):
    data = batch((5, 7), (5, 7))
    labels = [sample.gt_sem_seg.data.clone() for sample in data['data_samples']]
    output = MODELS.build(dict(type='LabelAsInput', num_classes=3, size=(6, 8)))(data, training)
    inputs = output['inputs']
    assert inputs.shape == (2, 3, 6, 8) if training else (2, 3, 5, 7)
    for one, label in zip(inputs, labels, strict=True):
        assert torch.equal(one[:, :5, :7].sum(0), (label[0] != 255).float())
        assert torch.equal(one[:, :5, :7].argmax(0)[label[0] != 255], label[0][label[0] != 255])
        assert not one[:, 5:].any()
        assert not one[:, :, 7:].any()


@pytest.mark.parametrize('ignore_index', [0, 1])
def test_void_of_any_label_is_no_class(ignore_index):
    data = batch((5, 7), (5, 7))
    labels = torch.cat([sample.gt_sem_seg.data for sample in data['data_samples']])
    inputs = MODELS.build(dict(type='LabelAsInput', num_classes=3, ignore_index=ignore_index))(data)['inputs']
    assert torch.equal(inputs.sum(1), ((labels < 3) & (labels != ignore_index)).float())
    assert not inputs[:, ignore_index].any()


def test_label_of_another_size():
    data = batch((5, 7))
    data['data_samples'][0].gt_sem_seg = PixelData(data=torch.zeros(1, 10, 14, dtype=torch.long))
    with pytest.raises(ValueError, match=r'LabelAsInput: each label must have the size of its image \(5, 7\), but got \(10, 14\)'):
        MODELS.build(dict(type='LabelAsInput', num_classes=3))(data)


def test_no_label():
    data = batch((5, 7))
    del data['data_samples'][0].gt_sem_seg
    with pytest.raises(ValueError, match=r'LabelAsInput: each label must have the size of its image .* but got no label'):
        MODELS.build(dict(type='LabelAsInput', num_classes=3))(data)
