import numpy as np
import pytest
import reference
import torch
from releases import HALF
from torch import nn

pytest.importorskip('mmseg')
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder, SegTTAModel
from mmseg.structures import SegDataSample

import mmpool_ext  # noqa: F401
from mmpool_ext.decode_heads.pyramid_representation_head import PyramidRepresentationHead
from mmpool_ext.ops import label_pyramid, relabel_pyramid

VOID = 255
ANL = dict(type='AsymmetricNonLocalContext', key_channels=4, pool_scales=(1, 2))
CTX = dict(type='CoarseToFineContext', key_channels=4, pool_scales=(1, 2))
SETTINGS = dict(
    A=dict(context=None, supervision='finest'),
    B=dict(context=ANL, supervision='finest'),
    C=dict(context=CTX, supervision='finest'),
    D=dict(context=None, supervision='raw'),
    E=dict(context=None, supervision='gt'),
    F=dict(context=None, supervision='tp'),
    G=dict(context=ANL, supervision='tp'),
    H=dict(context=CTX, supervision='tp'),
    I=dict(context=CTX, supervision='auxiliary'),
)


class Stride4(BaseModule):
    """The smallest backbone: four strides, one convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=4, padding=1)

    def forward(self, x):
        return (self.conv(x),)


def head_config(**kwargs):
    return dict(dict(in_channels=6, channels=5, num_classes=3, strides=(16, 8, 4), norm_cfg=dict(type='BN'), unity_channels=4, context=CTX), **kwargs)


def build_head(**kwargs):
    torch.manual_seed(0)
    head = PyramidRepresentationHead(**head_config(**kwargs))
    head.init_weights()
    return head


def build_segmentor(test_cfg=None, **kwargs):
    torch.manual_seed(0)
    decode_head = dict(head_config(**kwargs), type='PyramidRepresentationHead')
    return EncoderDecoder(dict(type=Stride4), decode_head, train_cfg={}, test_cfg=ConfigDict(test_cfg or dict(mode='whole')), data_preprocessor=None)


def samples_of(label):
    metas = [dict(img_shape=tuple(one.shape), ori_shape=tuple(one.shape), img_path='image.png') for one in label]
    return [SegDataSample(gt_sem_seg=PixelData(data=one[None]), metainfo=meta) for one, meta in zip(label, metas, strict=True)]


def random_labels(n, height, width, num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_classes, (n, -(-height // 8), -(-width // 8))).repeat(8, 1).repeat(8, 2)[:, :height, :width]
    label[rng.random(label.shape) < 0.002] = 1
    label[:, :3, : width // 2] = VOID
    return torch.from_numpy(label)


@pytest.mark.parametrize('setting', SETTINGS)
def test_every_setting_trains_a_step_and_predicts(setting):
    head = build_head(dropout_ratio=0, **SETTINGS[setting])
    x, samples = (torch.randn(2, 6, 8, 12),), samples_of(random_labels(2, 32, 48))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(2):
        losses = head.loss(x, samples, {})
        total = sum(value for name, value in losses.items() if 'loss' in name)
        assert torch.isfinite(total)
        optimizer.zero_grad()
        total.backward()
        assert [name for name, parameter in head.named_parameters() if parameter.grad is None] == []
        optimizer.step()
    silent = [name for name, parameter in head.named_parameters() if not parameter.grad.any()]
    assert [name for name in silent if 'key' not in name] == [], 'a bias on the keys cancels in the softmax'
    pyramids = setting in 'DEFGH'
    assert sum(name.startswith('loss_unity') for name in losses) == 2 * pyramids
    assert sum(name.startswith('loss_ce') for name in losses) == (1 if setting in 'ABC' else 3)
    assert losses['acc_seg'].numel() == 1
    head.eval()
    assert head(x).shape == (2, 3, 8, 12)
    pyramid = head.predict_pyramid(x)
    fused, level = head.fuse(pyramid)
    assert level.shape == (2, 8, 12)
    torch.testing.assert_close(fused, head(x))
    assert [one.shape for one in head.spread(pyramid)] == [(2, 3, 8, 12)] * len(head.conv_seg)


@pytest.mark.parametrize('mode', ['raw', 'gt', 'tp'])
@pytest.mark.parametrize('void_rule', ['agree', 'strict'])
def test_loss_equals_the_oracle(mode, void_rule):
    head = build_head(supervision=mode, void_rule=void_rule, unity_threshold=0.45)
    label = random_labels(1, 32, 48)
    pyramid = head((torch.randn(1, 6, 8, 12) * 3,))
    losses = head.loss_by_feat(pyramid, samples_of(label))
    strides = (16, 8, 4)
    semantic, unity = reference.pyramid_labels(label[0].numpy(), strides, void_rule=void_rule)
    probability = [logit[0].sigmoid().detach().numpy() for logit in pyramid.unity]
    semantic, unity = reference.pyramid_relabel(semantic, unity, probability, mode, 0.45)
    expected = reference.pyramid_loss(
        [s[0].detach().numpy() for s in pyramid.semantic], [u[0].detach().numpy() for u in pyramid.unity], semantic, unity
    )
    total = sum(value for name, value in losses.items() if 'loss' in name)
    np.testing.assert_allclose(total.item(), expected, rtol=1e-5)


def test_fused_logits_equal_the_oracle():
    head = build_head(unity_threshold=0.5).eval()
    pyramid = head.predict_pyramid((torch.randn(1, 6, 8, 12) * 5,))
    pyramid.unity[0].data.copy_(torch.randn(1, 2, 3))
    pyramid.unity[1].data.copy_(torch.randn(1, 4, 6))
    fused, level = head.fuse(pyramid)
    probability = [logit[0].sigmoid().detach().numpy() for logit in pyramid.unity]
    expected, chosen = reference.pyramid_fuse([s[0].detach().numpy() for s in pyramid.semantic], probability)
    np.testing.assert_array_equal(fused[0].detach(), expected)
    np.testing.assert_array_equal(level[0], chosen)
    assert len(np.unique(chosen)) == 3


@pytest.mark.parametrize('setting', SETTINGS)
@pytest.mark.parametrize('label', [VOID, 1])
def test_losses_are_finite_without_valid_or_mixed_cells(setting, label):
    head = build_head(**SETTINGS[setting])
    with torch.no_grad():
        if head.unity_head is not None:
            for conv in head.unity_head.convs:
                conv.bias.fill_(50)  # everything is done by the coarsest level
    losses = head.loss((torch.randn(2, 6, 8, 8),), samples_of(torch.full((2, 32, 32), label)), {})
    total = sum(value for name, value in losses.items() if 'loss' in name)
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    if label == VOID:
        assert total == 0


def test_auxiliary_targets_are_the_downsampled_labels():
    head = build_head(**SETTINGS['I'])
    label = random_labels(1, 32, 32)
    semantic, unity = head.targets(label, [])
    assert unity == []
    for stride, target in zip((16, 8, 4), semantic, strict=True):
        assert torch.equal(target, label[:, stride // 2 :: stride, stride // 2 :: stride])


def test_several_losses_keep_their_names():
    losses = [
        dict(type='CrossEntropyLoss', avg_non_ignore=True),
        dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_name='loss_again', loss_weight=2.0),
    ]
    head = build_head(loss_decode=losses)
    values = head.loss((torch.randn(1, 6, 8, 8),), samples_of(random_labels(1, 32, 32)), {})
    torch.testing.assert_close(values['loss_again.s4'], 2 * values['loss_ce.s4'])


def test_hard_pixel_mining_touches_the_finest_level_alone():
    x, samples = (torch.randn(1, 6, 8, 8),), samples_of(random_labels(1, 32, 32))
    plain, mining = (build_head(dropout_ratio=0, sampler=sampler) for sampler in (None, dict(type='OHEMPixelSampler', min_kept=2)))
    mining.load_state_dict(plain.state_dict())
    one, other = plain.loss(x, samples, {}), mining.loss(x, samples, {})
    assert other['loss_ce.s4'] < one['loss_ce.s4']
    for name in ('loss_ce.s16', 'loss_ce.s8', 'loss_unity.s8'):
        torch.testing.assert_close(one[name], other[name])


@pytest.mark.parametrize(('height', 'width'), [(16, 16), (17, 30), (33, 47), (45, 77)])
@pytest.mark.parametrize('setting', ['A', 'G', 'H', 'I'])
def test_sizes_that_the_coarsest_stride_does_not_divide(setting, height, width):
    model = build_segmentor(**SETTINGS[setting])
    image, samples = torch.randn(2, 3, height, width), samples_of(random_labels(2, height, width))
    losses = model.loss(image, samples)
    assert all(torch.isfinite(value).all() for value in losses.values())
    model.eval()
    with torch.no_grad():
        assert model.predict(image, samples)[0].pred_sem_seg.shape == (height, width)
        assert model(image, mode='tensor').shape == (2, 3, -(-height // 4), -(-width // 4))


def test_padding_leaves_whole_cells_alone():
    head = build_head(**SETTINGS['F']).eval()
    x = torch.randn(1, 6, 8, 8)
    whole, cut = head.predict_pyramid((x,)), head.predict_pyramid((x[..., :6],))
    torch.testing.assert_close(whole.semantic[0][..., :1], cut.semantic[0][..., :1])
    torch.testing.assert_close(whole.unity[1][..., :3], cut.unity[1][..., :3])
    assert cut.size == (8, 6)
    left, right = head.predict_pyramid((torch.ones(1, 6, 8, 6),)).semantic[0].unbind(-1)
    torch.testing.assert_close(left, right, msg='the padding continues the border')


def test_slide_inference_covers_partial_patches():
    model = build_segmentor(test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(20, 20))).eval()
    with torch.no_grad():
        assert model.predict(torch.randn(1, 3, 45, 50), samples_of(random_labels(1, 45, 50)))[0].pred_sem_seg.shape == (45, 50)


def test_fused_probabilities_leave_as_log_probabilities():
    logits = build_segmentor().eval()
    probabilities = build_segmentor(fuse_probabilities=True).eval()
    probabilities.load_state_dict(logits.state_dict())
    image, samples = torch.randn(1, 3, 32, 32) * 20, samples_of(random_labels(1, 32, 32))
    with torch.no_grad():
        fused = logits(image, mode='tensor')
        expected = nn.functional.interpolate(fused.softmax(1), size=(32, 32), mode='bilinear')
        got = probabilities.encode_decode(image, [samples[0].metainfo])
        torch.testing.assert_close(got.softmax(1), expected)
        views = [probabilities.predict(one, samples_of(random_labels(1, 32, 32)))[0] for one in (image, image.flip(3))]
        mean = sum(view.seg_logits.data.softmax(0) for view in views) / 2
        merged = SegTTAModel(probabilities).merge_preds([views])[0]
        assert torch.equal(merged.pred_sem_seg.data.squeeze(0), mean.argmax(0))


@pytest.mark.parametrize('setting', ['G', 'H'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, HALF])
def test_autocast(setting, dtype):
    head = build_head(dropout_ratio=0, **SETTINGS[setting])
    x, samples = (torch.randn(2, 6, 8, 8),), samples_of(random_labels(2, 32, 32))
    exact = head.loss(x, samples, {})
    with torch.autocast('cpu', dtype):
        rounded = head.loss(x, samples, {})
    for name, value in exact.items():
        if 'loss' in name:
            assert rounded[name].dtype == torch.float32
            torch.testing.assert_close(rounded[name], value, rtol=0.05, atol=0.01)
    sum(value for name, value in rounded.items() if 'loss' in name).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    with torch.autocast('cpu', dtype), torch.no_grad():
        assert torch.isfinite(head.eval()(x)).all()


def test_initial_state():
    head = build_head(strides=(32, 16, 8, 4))
    assert [conv.kernel_size for conv in head.unity_head.convs] == [(8, 8), (4, 4), (2, 2)]
    assert [conv.stride for conv in head.unity_head.convs] == [(8, 8), (4, 4), (2, 2)]
    for conv in [*head.unity_head.convs, *head.conv_seg]:
        assert not conv.bias.any()
        assert 0 < conv.weight.std() < 0.03


def test_one_class_map_for_binary_segmentation():
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True)
    head = build_head(num_classes=2, out_channels=1, threshold=0.5, loss_decode=loss)
    losses = head.loss((torch.randn(1, 6, 8, 8),), samples_of(random_labels(1, 32, 32, num_classes=2)), {})
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert head.eval()((torch.randn(1, 6, 8, 8),)).shape == (1, 1, 8, 8)
    with pytest.raises(ValueError, match='fuse_probabilities must be False with one output channel, but got True'):
        build_head(num_classes=2, out_channels=1, threshold=0.5, loss_decode=loss, fuse_probabilities=True)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(strides=(16, 4)), r'PyramidRepresentationHead: strides must be two or more, each half of the one before.*but got \(16, 4\)'),
        (dict(unity_threshold=1.0), 'PyramidRepresentationHead: unity_threshold must lie strictly between 0 and 1, but got 1.0'),
        (dict(supervision='fp'), "PyramidRepresentationHead: supervision must be one of .*'finest'.*, but got 'fp'"),
        (dict(void_rule='majority'), "PyramidRepresentationHead: void_rule must be one of .*, but got 'majority'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build_head(**kwargs)


def test_coarsest_stride_beyond_the_image():
    with pytest.raises(ValueError, match='the coarsest stride 16 must not exceed the image, but got features of 3 x 8 at stride 4'):
        build_head()((torch.randn(1, 6, 3, 8),))


def test_strides_must_end_at_the_stride_of_the_features():
    head = build_head(strides=(32, 16, 8))
    message = r'the last of strides must be the stride of the features, 8, but got features of 8 x 8 for an image of 32 x 32'
    with pytest.raises(ValueError, match=message):
        head.loss((torch.randn(1, 6, 8, 8),), samples_of(random_labels(1, 32, 32)), {})
    head.eval()
    with pytest.raises(ValueError, match=message):
        head.predict((torch.randn(1, 6, 8, 8),), [dict(img_shape=(32, 32))], {})
    assert head.predict((torch.randn(1, 6, 8, 8),), [dict(img_shape=(20, 20), pad_shape=(64, 57, 3))], {}).shape[2:] == (64, 57)


def test_tp_drops_what_the_unity_pyramid_finds():
    head = build_head()
    label = torch.zeros(1, 32, 32, dtype=torch.long)
    sure = [torch.full((1, 2, 2), 5.0), torch.full((1, 4, 4), 5.0)]
    semantic, unity = head.targets(label, sure)
    assert (semantic[1] == VOID).all()
    assert (semantic[2] == VOID).all()
    assert (unity[1] == -1).all()
    expected = relabel_pyramid(*label_pyramid(label, (16, 8, 4)), sure)
    assert torch.equal(semantic[0], expected[0][0])


@pytest.mark.parametrize('ignore_index', [0, 1, 2])
def test_void_may_have_any_label(ignore_index):
    """Losses with void at 0 or 1 are those with void at 255: mixed and unit cells are learnt from."""
    torch.manual_seed(0)
    head = build_head()
    pyramid = head.train()((torch.randn(2, 6, 8, 8),))
    label = random_labels(2, 32, 32)
    label[:, :, :9] = VOID
    # the same classes for void at 255 and at ignore_index: none may be ignore_index itself
    label = torch.where(label == ignore_index, VOID, label)
    expected = head.loss_by_feat(pyramid, samples_of(label))
    head.ignore_index = ignore_index
    got = head.loss_by_feat(pyramid, samples_of(torch.where(label == VOID, ignore_index, label)))
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value)
    assert any(float(value) > 0 for name, value in got.items() if 'unity' in name)
