"""Every loss of mmseg's, with every head: only labelled pixels count, whatever is left of them."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData

pytest.importorskip('mmseg')
from mmseg.structures import SegDataSample

import mmpool_ext  # noqa: F401 registers the heads
from mmpool_ext.decode_heads.labelled_loss import REFUSED, accuracy, labelled_loss

VOID = 255
WEIGHTS = [0.5, 2.0, 1.0]
# Loss, and the number of output channels: one is a binary task.
LOSSES = {
    'ce': (dict(type='CrossEntropyLoss'), 3),
    'ce avg_non_ignore': (dict(type='CrossEntropyLoss', avg_non_ignore=True), 3),
    'ce class_weight': (dict(type='CrossEntropyLoss', class_weight=WEIGHTS), 3),
    'ce class_weight avg_non_ignore': (dict(type='CrossEntropyLoss', class_weight=WEIGHTS, avg_non_ignore=True), 3),
    'ce none': (dict(type='CrossEntropyLoss', reduction='none'), 3),
    'ce none class_weight': (dict(type='CrossEntropyLoss', reduction='none', class_weight=WEIGHTS), 3),
    'ce sum': (dict(type='CrossEntropyLoss', reduction='sum'), 3),
    'bce': (dict(type='CrossEntropyLoss', use_sigmoid=True), 3),
    'bce avg_non_ignore': (dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True), 3),
    'bce class_weight': (dict(type='CrossEntropyLoss', use_sigmoid=True, class_weight=WEIGHTS), 3),
    'bce none class_weight': (dict(type='CrossEntropyLoss', use_sigmoid=True, class_weight=WEIGHTS, reduction='none'), 3),
    'bce one channel': (dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True), 1),
    'focal': (dict(type='FocalLoss'), 3),
    'focal class_weight': (dict(type='FocalLoss', class_weight=WEIGHTS), 3),
    'focal none': (dict(type='FocalLoss', reduction='none'), 3),
    'focal sum': (dict(type='FocalLoss', reduction='sum'), 3),
    'focal one channel': (dict(type='FocalLoss'), 1),
    'dice': (dict(type='DiceLoss'), 3),
    'dice softmax': (dict(type='DiceLoss', use_sigmoid=False), 3),
    'dice naive': (dict(type='DiceLoss', naive_dice=True), 3),
    'dice none': (dict(type='DiceLoss', reduction='none'), 3),
    'dice sum': (dict(type='DiceLoss', reduction='sum'), 3),
    'dice one channel': (dict(type='DiceLoss'), 1),
    'tversky': (dict(type='TverskyLoss'), 3),
    'tversky class_weight': (dict(type='TverskyLoss', class_weight=WEIGHTS), 3),
    'lovasz': (dict(type='LovaszLoss', reduction='none'), 3),
    'lovasz class_weight': (dict(type='LovaszLoss', reduction='none', class_weight=WEIGHTS), 3),
    'lovasz per_image': (dict(type='LovaszLoss', per_image=True), 3),
    'lovasz per_image none': (dict(type='LovaszLoss', per_image=True, reduction='none'), 3),
    'lovasz binary': (dict(type='LovaszLoss', loss_type='binary', reduction='none'), 1),
    'lovasz binary per_image': (dict(type='LovaszLoss', loss_type='binary', per_image=True), 1),
}
CASES = ('usual', 'no label', 'one labelled pixel', 'one class', 'one image void')
parametrize_loss = pytest.mark.parametrize('loss', LOSSES)
parametrize_case = pytest.mark.parametrize('case', CASES)


def label_of(case, classes, size=16):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(classes, (2, size // 4, size // 4), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    label[:, :2] = VOID
    if case == 'no label':
        label[:] = VOID
    if case == 'one labelled pixel':
        label[:] = VOID
        label[1, 5, 6] = 1
    if case == 'one class':
        label[label != VOID] = 1
    if case == 'one image void':
        label[0] = VOID
    return label


def logits_of(channels, size=16):
    return 3 * torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


@parametrize_case
@parametrize_loss
def test_ignored_pixels_do_not_count(loss, case):
    cfg, channels = LOSSES[loss]
    criterion, logits, label = MODELS.build(dict(cfg, _scope_='mmseg')), logits_of(channels).requires_grad_(), label_of(case, max(channels, 2))
    value = labelled_loss(criterion, logits, label, VOID)
    assert value.isfinite().all()
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all()
    ignored = (label == VOID)[:, None].expand_as(logits)
    assert not gradient[ignored].any()
    changed = torch.where(ignored, 50 * torch.randn(logits.shape), logits.detach())
    torch.testing.assert_close(labelled_loss(criterion, changed, label, VOID), value.detach())
    if case == 'no label':
        assert not value.any()
        assert value.dtype == torch.float32
    else:
        assert gradient.any()


# Without ignored pixels mmseg's own value is right, but for faults of its own: a sigmoid's class_weight, focal loss on a CPU, Dice of one channel.
@pytest.mark.parametrize('loss', [loss for loss in LOSSES if not loss.startswith(('focal', 'bce', 'dice one'))])
def test_without_ignored_pixels_it_is_mmsegs(loss):
    cfg, channels = LOSSES[loss]
    criterion, logits, label = MODELS.build(dict(cfg, _scope_='mmseg')), logits_of(channels), label_of('usual', max(channels, 2))
    label[label == VOID] = 0
    # avg_non_ignore makes no difference then, and the forks' mmseg fails at it beside class weights.
    theirs = MODELS.build(dict(cfg, _scope_='mmseg') | ({'avg_non_ignore': False} if 'avg_non_ignore' in cfg else {}))
    torch.testing.assert_close(labelled_loss(criterion, logits, label, VOID), theirs(logits, label, ignore_index=VOID))


def test_values_by_hand():
    """Sigmoid losses of one labelled pixel with logits 0: log 2 for each class, times the weight of a positive; focal: a quarter of half of it."""
    logits, label = torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), VOID)
    label[0, 1, 0] = 1
    build = lambda **cfg: MODELS.build(dict(cfg, _scope_='mmseg'))  # noqa: E731
    bce = build(type='CrossEntropyLoss', use_sigmoid=True, class_weight=[1.0, 3.0], reduction='sum')
    log2 = torch.tensor(2.0).log()
    torch.testing.assert_close(labelled_loss(bce, logits, label, VOID), 4 * log2)
    torch.testing.assert_close(labelled_loss(build(type='FocalLoss'), logits, label, VOID), log2 / 8)
    # Dice of the foreground: 2 * 0.5 / (0.25 + 1)
    dice = build(type='DiceLoss', eps=0.0)
    torch.testing.assert_close(labelled_loss(dice, logits[:, :1], label, VOID), torch.tensor(0.2))


def test_only_a_cross_entropy_that_asks_for_it_divides_by_all_pixels():
    logits, label = torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), VOID)
    label[0, 0, 0] = 0
    values = [
        labelled_loss(MODELS.build(dict(type='CrossEntropyLoss', avg_non_ignore=alone, _scope_='mmseg')), logits, label, VOID)
        for alone in (True, False)
    ]
    torch.testing.assert_close(values[0], torch.tensor(2.0).log())
    torch.testing.assert_close(values[1], values[0] / 4)


HEADS = {
    'DUpsamplingHead': lambda channels: dict(
        type='DUpsamplingHead',
        in_channels=6,
        channels=5,
        num_classes=channels,
        dilations=None,
        upsample=dict(in_channels=4, scale_factor=4, init='random'),
    ),
    'BilinearFusionHead': lambda channels: dict(type='BilinearFusionHead', in_channels=6, channels=5, dilations=None),
    'PyramidRepresentationHead': lambda channels: dict(
        type='PyramidRepresentationHead', in_channels=6, channels=5, strides=(16, 8, 4), context=None, unity_channels=4
    ),
}


def build_head(name, channels, **kwargs):
    torch.manual_seed(0)
    binary = dict(num_classes=2, out_channels=1, threshold=0.5) if channels == 1 else dict(num_classes=channels)
    kwargs = kwargs if name == 'DUpsamplingHead' else {**binary, **kwargs}
    head = MODELS.build({**HEADS[name](channels), 'dropout_ratio': 0, '_scope_': 'mmseg', **kwargs})
    head.init_weights()
    return head


@parametrize_case
@parametrize_loss
@pytest.mark.parametrize('name', HEADS)
def test_heads(name, loss, case):
    cfg, channels = LOSSES[loss]
    if name == 'DUpsamplingHead' and channels == 1:
        with pytest.raises(ValueError, match='DUpsamplingHead: out_channels must be num_classes = 2, but got 1'):
            build_head(name, 2, out_channels=1, threshold=0.5, loss_decode=cfg)
        return
    head = build_head(name, channels, loss_decode=cfg)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in label_of(case, max(channels, 2), size=32)]
    losses = head.loss((torch.randn(2, 6, 8, 8),), samples, {})
    total = sum(value.mean() for key, value in losses.items() if 'loss' in key)
    total.backward()
    assert all(value.isfinite().all() for value in losses.values())
    gradients = [parameter.grad for parameter in head.parameters() if parameter.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    if case == 'no label':
        assert total == 0
        assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize('name', HEADS)
@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(type='OhemCrossEntropy'), 'it is NaN where no pixel is hard; use CrossEntropyLoss with sampler'),
        (dict(type='BoundaryLoss'), 'it compares edge maps'),
        (dict(type='SiLogLoss'), 'it compares depths'),
        (dict(type='HuasdorffDisstanceLoss'), 'its distances run through ignored pixels'),
        (dict(type='CrossEntropyLoss', use_mask=True), 'use_mask is for masks of regions'),
        (dict(type='LovaszLoss', loss_type='binary', reduction='none'), "loss_type='binary' needs one output channel, not 3"),
    ],
)
def test_refused_losses(name, cfg, message):
    if MODELS.get(f'mmseg.{cfg["type"]}') is None and cfg['type'] in REFUSED:
        pytest.skip(f'this mmseg has no {cfg["type"]}')
    with pytest.raises(ValueError, match=f'{name}: loss_decode must be a loss of labelled pixels, but got {cfg["type"]}: {message}'):
        build_head(name, 3, loss_decode=cfg)


def test_a_softmax_needs_two_channels_and_a_sampler_a_loss_of_pixels():
    for cfg in (dict(type='CrossEntropyLoss'), dict(type='TverskyLoss'), dict(type='LovaszLoss', reduction='none')):
        with pytest.raises(ValueError, match='its softmax needs at least two output channels'):
            build_head('PyramidRepresentationHead', 1, loss_decode=cfg)
    sampler = dict(type='OHEMPixelSampler', min_kept=10)
    sigmoid = dict(type='CrossEntropyLoss', use_sigmoid=True)
    for loss, channels, thresh, problem in (
        (sigmoid, 1, 0.7, "the sampler's thresh is of a softmax, which needs at least two output channels"),
        (sigmoid, 3, None, 'it has a value for each channel, and a sampler without thresh needs one for each pixel'),
        (dict(type='FocalLoss'), 1, None, 'it has a value for each channel, and a sampler without thresh needs one for each pixel'),
        (dict(type='FocalLoss'), 3, None, 'it has a value for each channel, and a sampler without thresh needs one for each pixel'),
    ):
        with pytest.raises(ValueError, match=problem):
            build_head('BilinearFusionHead', channels, loss_decode=loss, sampler=dict(sampler, thresh=thresh))
    with pytest.raises(ValueError, match='it has no weight for each pixel, so a sampler would do nothing'):
        build_head('BilinearFusionHead', 3, loss_decode=dict(type='DiceLoss'), sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=10))


def test_every_loss_of_mmseg_is_tried_or_refused():
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS as MMSEG

    known = {cfg['type'] for cfg, _ in LOSSES.values()} | set(REFUSED)
    found = {name for name, cls in MMSEG.module_dict.items() if cls.__module__.startswith('mmseg.models.losses')}
    assert len(found) > 5
    assert found <= known


def test_accuracy_of_one_channel():
    logits = torch.tensor([[[[-2.0, 0.2], [0.2, 3.0]]]])
    label = torch.tensor([[[0, 0], [1, VOID]]])
    assert accuracy(logits, label, VOID).item() == pytest.approx(200 / 3)
    assert accuracy(logits, label, VOID, threshold=0.6).item() == pytest.approx(200 / 3)
    assert accuracy(logits, label, VOID, threshold=0.05).item() == pytest.approx(100 / 3)


def loss_of(name, label, *, batch=2, size=8, **kwargs):
    head = build_head(name, 3, **kwargs)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in label]
    return head.loss((torch.randn(batch, 6, size, size, generator=torch.Generator().manual_seed(1)),), samples, {})


@pytest.mark.parametrize('name', HEADS)
@pytest.mark.parametrize('ignore_index', [0, 1, 2, -1, 254])
def test_any_label_may_be_void(name, ignore_index):
    """The losses are those of the same labels with 255 as void, and what they are filled with does not count."""
    label = label_of('usual', 3, size=32)
    label[label == ignore_index] = VOID
    expected = loss_of(name, label)
    got = loss_of(name, torch.where(label == VOID, ignore_index, label), ignore_index=ignore_index)
    assert got.keys() == expected.keys()
    for key, value in got.items():
        torch.testing.assert_close(value, expected[key])


@pytest.mark.parametrize('name', HEADS)
@pytest.mark.parametrize('loss', [dict(type='DiceLoss'), dict(type='CrossEntropyLoss', use_sigmoid=True), dict(type='CrossEntropyLoss')])
def test_a_label_that_is_no_class_is_an_error(name, loss):
    """Dice would take it for the last class, a sigmoid's cross entropy for none."""
    label = label_of('usual', 3, size=32)
    with pytest.raises(ValueError, match=rf'{name}: labels must be 0 to 2 or ignore_index 0, but got \[255\]; if it is .* padding, set seg_pad_val'):
        loss_of(name, label, loss_decode=loss, ignore_index=0)
    label[0, 9, 9] = -1
    with pytest.raises(ValueError, match=rf'{name}: labels must be 0 to 2 or ignore_index 255, but got \[-1\]'):
        loss_of(name, label, loss_decode=loss)


@pytest.mark.parametrize('case', ['DUpsamplingHead', 'DUpsamplingHead regression', 'BilinearFusionHead', 'PyramidRepresentationHead'])
def test_a_batch_of_one_says_what_to_do(case):
    """The image pooling sees 1 x 1 at every size, the coarsest level in an image of one cell. The remedies that the message names work."""
    name, _, objective = case.partition(' ')
    size = 4 if name == 'PyramidRepresentationHead' else 8
    kwargs = dict(norm_cfg=dict(type='BN'))
    if name != 'PyramidRepresentationHead':
        kwargs['dilations'] = (1,)
    if objective:
        kwargs['objective'] = objective
        kwargs['upsample'] = dict(in_channels=4, scale_factor=4, init='random')
    label = label_of('usual', 3, size=4 * size)
    with pytest.raises(ValueError, match=rf'{name}: a norm in training mode must see .* but got one image and a map of 1 x 1 .*drop_last=True.*GN'):
        loss_of(name, label[:1], batch=1, size=size, **kwargs)
    group_norm = kwargs | dict(norm_cfg=dict(type='GN', num_groups=1))
    for losses in (loss_of(name, label, size=size, **kwargs), loss_of(name, label[:1], batch=1, size=size, **group_norm)):
        assert all(value.isfinite() for value in losses.values())
