"""FCN8sHead: its start as FCN-32s, its fusion, mmseg's interface."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from torch.nn import functional as F

import mmpool_ext  # noqa: F401 registers the head

mmseg = pytest.importorskip('mmseg')

CHANNELS = (4, 6, 8)


def build(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(type='FCN8sHead', in_channels=CHANNELS, num_classes=3, dropout_ratio=0, _scope_='mmseg', **kwargs))


def features(height=16, width=24):
    return tuple(torch.randn(2, c, -(-height // step), -(-width // step)) for c, step in zip(CHANNELS, (1, 2, 4), strict=True))


@pytest.mark.parametrize('initialise', [False, True])
def test_starts_as_bilinear_upsampling_of_the_coarsest_score(initialise):
    head = build()
    if initialise:
        for parameter in head.parameters():
            torch.nn.init.ones_(parameter)
        head.init_weights()
    inputs = features()
    expected = F.interpolate(F.interpolate(head.conv_seg(inputs[2]), scale_factor=2, mode='bilinear'), scale_factor=2, mode='bilinear')
    output = head(inputs)
    assert output.shape == (2, 3, 16, 24)
    torch.testing.assert_close(output[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4])


def test_weights_of_a_checkpoint_stay(tmp_path):
    trained = build()
    for tensor in trained.state_dict().values():
        tensor.fill_(7)
    torch.save({f'decode_head.{key}': tensor for key, tensor in trained.state_dict().items()}, tmp_path / 'fcn8s.pth')
    head = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'fcn8s.pth'), prefix='decode_head'))
    head.init_weights()
    assert all(parameter.eq(7).all() for parameter in head.parameters())


def test_adds_the_scores_of_the_finer_maps():
    head = build()
    torch.nn.init.normal_(head.score8.weight)
    torch.nn.init.normal_(head.score16.weight)
    fine, middle, coarse = features()
    up = lambda x: F.interpolate(x, scale_factor=2, mode='bilinear')  # noqa: E731
    expected = up(up(head.conv_seg(coarse)) + head.score16(middle)) + head.score8(fine)
    torch.testing.assert_close(head((fine, middle, coarse))[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4])


def test_every_parameter_gets_a_gradient_through_the_loss():
    head = build()
    samples = []
    for label in torch.randint(0, 3, (2, 1, 128, 192)):
        samples.append(mmseg.structures.SegDataSample(gt_sem_seg=PixelData(data=label)))
    losses = head.loss(features(), samples, dict())
    losses['loss_ce'].backward()
    assert losses['loss_ce'].isfinite()
    assert not [name for name, parameter in head.named_parameters() if parameter.grad is None or not parameter.grad.any()]


def test_odd_sizes_and_prediction():
    head = build().eval()
    assert head(features(15, 21)).shape[2:] == (15, 21)
    assert head.predict(features(15, 21), [dict(img_shape=(117, 163))], dict()).shape == (2, 3, 117, 163)


def test_strides_4_8_16_are_an_error():
    """It trained: logits of any size are resized to the labels'."""
    head, inputs = build(), features(32, 48)
    message = r'the first of in_index must be a map of stride 8, but got features of 32 x 48 for an image of 128 x 192'
    label = PixelData(data=torch.randint(0, 3, (1, 128, 192)))
    with pytest.raises(ValueError, match=message):
        head.loss(inputs, [mmseg.structures.SegDataSample(gt_sem_seg=label)] * 2, dict())
    with pytest.raises(ValueError, match=message):
        head.eval().predict(inputs, [dict(img_shape=(128, 192))] * 2, dict())


@pytest.mark.parametrize('size', [(375, 500), (376, 503), (75, 101)])
def test_backbones_that_round_down(size):
    """VGG's 2x2 poolings floor: 46, 23 and 11 rows of 375. Validation died of it after the training of even crops went well."""
    head = build().eval()
    maps = tuple(torch.randn(1, channels, size[0] // stride, size[1] // stride) for channels, stride in zip(CHANNELS, (8, 16, 32), strict=True))
    assert head(maps).shape[2:] == (size[0] // 8, size[1] // 8)
    with torch.no_grad():
        for parameter in (head.score8, head.score16):
            parameter.bias.zero_()
        head.conv_seg.weight.zero_()
        head.conv_seg.bias.copy_(torch.arange(3.0))
        last = head(maps)[0, :, -1, -1]
    assert last[0] < last[1] < last[2]  # the edge is scored too


def test_bad_input():
    with pytest.raises(ValueError, match=r'FCN8sHead: in_channels and in_index must have three entries, but got \(1, 2\) and \(0, 1, 2\)'):
        MODELS.build(dict(type='FCN8sHead', in_channels=(1, 2), num_classes=3, _scope_='mmseg'))
    fine, middle, coarse = features()
    message = r'FCN8sHead: inputs must halve in size from one to the next, but got \(8, 12\) where twice the next is \(16, 24\)'
    with pytest.raises(ValueError, match=message):
        build()((fine, middle, F.interpolate(coarse, size=(8, 12))))
