"""The DUpsampling decoder and the vanilla one beside it."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg')
pytest.importorskip('timm')

from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.structures import SegDataSample

import mmpool_ext
from mmpool_ext.backbones import Tapped
from mmpool_ext.decode_heads.dupsampling_head import BilinearFusionHead, DUpsamplingHead
from mmpool_ext.layers import DUpsampling, fit_dupsampling

FEATURES = {  # channels and size at 513 x 513, checked against the built backbones in tests/backbones/test_tapped.py
    'conv1_3': (128, 257),
    'b1u2c3': (256, 129),
    'b3u6c3': (1024, 33),
    'efb2u1c2': (256, 129),
    'mfb1u16c3': (728, 33),
}


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')
    yield
    DefaultScope._instance_dict.clear()


def decoder_flops(head, run):
    """Operations of all convolutions and of DUpsampling in ``run()``: 2 a multiply-accumulate, counted where the modules run.

    The paper's FLOPS columns come out to their printed digits if the bias and the temperature together count one multiply-accumulate an output value.
    """
    macs = []

    def convolution(module, args, output):
        macs.append(output.numel() * module.weight[0].numel())

    def dupsampling(module, args, output):
        positions = args[0].numel() // module.in_channels
        macs.append(positions * (module.weight.numel() + module.bias.numel()))

    handles = [m.register_forward_hook(convolution) for m in head.modules() if isinstance(m, torch.nn.Conv2d)]
    handles += [m.register_forward_hook(dupsampling) for m in head.modules() if isinstance(m, DUpsampling)]
    run()
    for handle in handles:
        handle.remove()
    return 2 * sum(macs)


def meta_head(low_level, dupsampling, num_classes=21, channels=64, scale_factor=16):
    """A head on meta tensors: shapes without arithmetic."""
    arguments = dict(num_classes=num_classes, in_channels=[FEATURES[name][0] for name in low_level] + [2048])
    arguments['in_index'] = list(range(len(low_level) + 1))
    if dupsampling:
        head = DUpsamplingHead(**arguments, upsample=dict(in_channels=channels, scale_factor=scale_factor))
        head.upsample._fault = None  # no W is looked at on the meta device
    else:
        head = BilinearFusionHead(**arguments)
    return head.to('meta').eval()


@pytest.mark.parametrize(
    ('low_level', 'channels', 'paper'),
    [
        # Table 2
        ([], 64, 0.80),
        (['conv1_3'], 64, 1.13),
        (['b1u2c3'], 64, 1.15),
        (['b3u6c3'], 64, 1.23),
        (['b1u2c3', 'b3u6c3'], 64, 1.58),
        (['conv1_3', 'b3u6c3'], 64, 1.56),
        # Table 3, Xception-65
        (['efb2u1c2'], 128, 1.93),
        (['mfb1u16c3'], 128, 1.98),
    ],
)
def test_decoder_cost_of_tables_2_and_3(low_level, channels, paper):
    head = meta_head(low_level, True, channels=channels)
    encoded = [torch.empty(1, FEATURES[n][0], *[FEATURES[n][1]] * 2, device='meta') for n in low_level]
    encoded.append(torch.empty(1, 256, 33, 33, device='meta'))
    assert round(decoder_flops(head, lambda: head.decode(encoded)) / 1e9, 2) == paper


@pytest.mark.parametrize('size', [(9, 9), (5, 9), (33, 17), (3, 2), (1, 1), (32, 32), (65, 33)])
@pytest.mark.parametrize('align_corners', [False, True])
def test_resizing_is_bilinear_also_where_samples_fall_on_pixels(size, align_corners):
    head = small_head(align_corners=align_corners)
    for shape in ((33, 17), (1, 1)):
        input = torch.randn(2, 3, *shape)
        expected = F.interpolate(input, size, mode='bilinear', align_corners=align_corners)
        torch.testing.assert_close(head._resized(input, torch.Size(size)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(('low_level', 'paper'), [('b1u2c3', 5.53), ('efb2u1c2', 5.53), ('mfb1u16c3', 0.41)])
def test_vanilla_decoder_cost_of_table_3(low_level, paper):
    head = meta_head([low_level], False)
    channels, size = FEATURES[low_level]
    encoded = [torch.empty(1, channels, size, size, device='meta'), torch.empty(1, 256, 33, 33, device='meta')]
    assert round(decoder_flops(head, lambda: head.decode(encoded)) / 1e9, 2) == paper


def test_decoder_cost_of_table_4():
    """Cityscapes at 1025 x 2049, 19 classes; the proposed decoder's figure fits 256 channels only."""
    head = meta_head(['efb2u1c2'], False, num_classes=19)
    encoded = [torch.empty(1, 256, 257, 513, device='meta'), torch.empty(1, 256, 65, 129, device='meta')]
    assert decoder_flops(head, lambda: head.decode(encoded)) / 1e9 == pytest.approx(43.65, abs=0.005)
    head = meta_head(['mfb1u16c3'], True, num_classes=19, channels=256)
    encoded = [torch.empty(1, 728, 65, 129, device='meta'), torch.empty(1, 256, 65, 129, device='meta')]
    assert decoder_flops(head, lambda: head.decode(encoded)) / 1e9 == pytest.approx(25.14, abs=0.005)


def test_whole_network_cost():
    """Xception-65 with its decoder. Section 1: stride 8 takes more than three times what 16 does. Section 4.2: 897.94B against 3055.35B for
    DeepLabv3+ at its stride 8, 29.4%."""
    input = torch.empty(1, 3, 513, 513, device='meta')
    costs = {}
    for stride, dupsampling, tap in ((16, True, 'blocks_18.stack.conv3'), (16, False, 'blocks_1.stack.conv2'), (8, False, 'blocks_1.stack.conv2')):
        network = Tapped('timm.xception65', [tap], output_stride=stride, out_indices=(4,)).to('meta').eval()
        head = meta_head(['mfb1u16c3' if dupsampling else 'efb2u1c2'], dupsampling, channels=128)
        model = torch.nn.Sequential(network, head)
        costs[stride, dupsampling] = decoder_flops(model, lambda model=model: model(input)) / 1e9
    assert costs[16, True] / costs[8, False] == pytest.approx(897.94 / 3055.35, abs=0.005)
    assert costs[8, False] / costs[16, False] > 3


# --- A small model -----------------------------------------------------------------------------------------------------------------------------


def labels(count=2, size=(33, 50), num_classes=3):
    torch.manual_seed(0)
    coarse = torch.randint(0, num_classes, (count, 1, 5, 6)).float()
    return F.interpolate(coarse, size, mode='nearest').long()


def samples(label):
    return [SegDataSample(gt_sem_seg=PixelData(data=one), metainfo=dict(img_shape=tuple(one.shape[-2:]))) for one in label]


def small_head(type='DUpsamplingHead', low_level=(6, 5), upsample=None, **kwargs):
    arguments = dict(type=type, in_channels=[*low_level, 8], in_index=list(range(len(low_level) + 1)), channels=16, num_classes=3)
    arguments |= dict(low_level_channels=4, dilations=(1, 2))
    if type == 'DUpsamplingHead':
        arguments['upsample'] = dict(in_channels=7, scale_factor=4, init='random') | (upsample or {})
    head = MODELS.build(arguments | kwargs)
    head.init_weights()
    return head


def features(size=(9, 13), batch=2):
    torch.manual_seed(1)
    height, width = size
    return [torch.randn(batch, 6, 2 * height, 2 * width), torch.randn(batch, 5, height, width), torch.randn(batch, 8, height, width)]


def test_names_resolve_to_the_classes():
    assert mmpool_ext.DUpsamplingHead is DUpsamplingHead
    assert isinstance(small_head(), DUpsamplingHead)
    assert type(small_head('BilinearFusionHead')) is BilinearFusionHead


def test_initial_state_is_the_papers():
    head = small_head(low_level=(64, 64), in_channels=[64, 64, 64], channels=64)
    convolutions = [m for m in head.modules() if isinstance(m, torch.nn.Conv2d)]
    for convolution in convolutions:
        assert float(convolution.weight.detach().std()) == pytest.approx(0.1, rel=0.25)
        assert convolution.bias is None or not convolution.bias.any()
    assert head.upsample.temperature == 1


@pytest.mark.parametrize('type', ['DUpsamplingHead', 'BilinearFusionHead'])
@pytest.mark.parametrize('low_level', [(), (6,), (6, 5)])
def test_trains_every_parameter(type, low_level):
    head = small_head(type, low_level)
    losses = head.loss(features()[: len(low_level)] + features()[-1:], samples(labels()), None)
    assert losses.keys() == {'loss_ce', 'acc_seg'} | ({'temperature'} if type == 'DUpsamplingHead' else set())
    losses['loss_ce'].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in head.parameters())
    assert not any('weight' in name and name.startswith('upsample') for name, _ in head.named_parameters())


def test_fuses_downsampled_features_in_order():
    """Eq. 8 by hand: resize down, reduce, concatenate behind, fuse; then the next feature."""
    head = small_head(dropout_ratio=0).eval()
    inputs = features()
    with torch.no_grad():
        expected = head.aspp(inputs[-1])
        for low, reduction, fusion in zip(inputs[:-1], head.reductions, head.fusions, strict=True):
            low = F.interpolate(low, (9, 13), mode='bilinear')
            expected = fusion(torch.cat([expected, reduction(low)], dim=1))
        expected = head.upsample(head.reduce(expected))
        torch.testing.assert_close(head(inputs), expected)
    assert expected.shape == (2, 3, 36, 52)


def test_vanilla_decodes_at_the_finest_feature():
    head = small_head('BilinearFusionHead').eval()
    assert head(features()).shape == (2, 3, 18, 26)
    assert small_head('BilinearFusionHead', ()).eval()(features()[-1:]).shape == (2, 3, 9, 13)


def test_output_is_cropped_never_stretched():
    head = small_head().eval()
    inputs = features()
    full = head(inputs)
    for shape in ((33, 50), torch.Size((33, 50))):
        assert torch.equal(head.predict(inputs, [dict(img_shape=shape)] * 2, {}), full[..., :33, :50])
    assert torch.equal(head.predict(inputs, [dict(img_shape=(20, 20), pad_shape=(36, 51, 3))] * 2, {}), full[..., :36, :51])
    with pytest.raises(ValueError, match=r'must cover the size asked for and .* but got \(36, 52\) for \(37, 52\)'):
        head.predict(inputs, [dict(img_shape=(37, 52))] * 2, {})
    loss = head.loss(inputs, samples(labels()), None)['loss_ce']
    torch.testing.assert_close(loss, F.cross_entropy(full[..., :33, :50], labels().squeeze(1)))


def test_ignored_pixels_do_not_count():
    head = small_head(loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)).eval()
    label = labels()
    label[:, :, 10:] = 255
    loss = head.loss(features(), samples(label), None)['loss_ce']
    torch.testing.assert_close(loss, F.cross_entropy(head(features())[..., :10, :50], label[:, 0, :10]))


def test_ohem_samples_the_cropped_logits():
    sampler = dict(type='OHEMPixelSampler', thresh=0.9, min_kept=10)
    head = small_head(sampler=sampler).eval()
    loss = head.loss(features(), samples(labels()), None)['loss_ce']
    assert loss.isfinite()
    assert loss != small_head().eval().loss(features(), samples(labels()), None)['loss_ce']


def test_two_losses_of_one_name_add_up():
    twice = [dict(type='CrossEntropyLoss'), dict(type='CrossEntropyLoss', loss_weight=2.0)]
    torch.manual_seed(0)
    one = small_head().eval()
    both = small_head(loss_decode=twice).eval()
    both.load_state_dict(one.state_dict())
    values = [head.loss(features(), samples(labels()), None)['loss_ce'] for head in (one, both)]
    torch.testing.assert_close(3 * values[0], values[1])


def test_regression_is_the_distance_to_the_compressed_labels():
    label = labels()
    label[:, :, :8, :8] = 255
    head = small_head(objective='regression')
    head.upsample.load_fit(fit_dupsampling(label[:, 0], 3, 4, 7))
    losses = head.loss(features(), samples(label), None)
    losses['loss_regression'].backward()
    assert losses.keys() == {'loss_regression'}
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)
    head.eval()
    output = head.compressed(head.encode(features()))
    target, mask = head.upsample.compress(label[:, 0])
    assert mask.sum() == 2 * (9 * 13 - 4)
    expected = ((output - target) ** 2).sum(1)[mask[:, 0]].mean()
    torch.testing.assert_close(head.loss(features(), samples(label), None)['loss_regression'], expected)
    classifier = small_head()
    classifier.load_state_dict(head.state_dict())  # the second stage starts from the first one's checkpoint
    assert classifier.upsample.log_temperature.requires_grad


def test_binary_and_batch_of_one():
    head = small_head(num_classes=2, norm_cfg=dict(type='GN', num_groups=2))
    inputs = features(batch=1)
    losses = head.loss(inputs, samples(labels(1, num_classes=2)), None)
    assert losses['loss_ce'].isfinite()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(objective='mse'), "objective must be 'classification' or 'regression', but got 'mse'"),
        (dict(num_classes=2, out_channels=1), 'out_channels must be num_classes = 2, but got 1'),
        (dict(objective='regression', upsample=dict(trainable=True)), "upsample must have trainable=False with objective='regression'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f'DUpsamplingHead: {message}'):
        small_head(**arguments)


# --- In a segmentor ----------------------------------------------------------------------------------------------------------------------------


def segmentor(test_cfg=dict(mode='whole'), init_weights=True, **head):
    backbone = dict(type='Tapped', backbone='ResNetV1c', taps=['layer1.1.bn2', 'layer3'], depth=18, base_channels=8, stem_channels=8)
    decode_head = dict(
        type='DUpsamplingHead', in_channels=[8, 64], in_index=[0, 2], channels=16, num_classes=3, dilations=(1, 2), low_level_channels=4
    )
    decode_head |= dict(upsample=dict(in_channels=7, scale_factor=32, init='random')) | head
    auxiliary = dict(type='FCNHead', in_channels=32, in_index=1, channels=8, num_convs=1, num_classes=3)
    config = dict(type='EncoderDecoder', backbone=backbone, decode_head=decode_head, auxiliary_head=auxiliary, test_cfg=test_cfg)
    model = MODELS.build(ConfigDict(config))
    if init_weights:
        model.init_weights()
    return model


def batch(size, count=1):
    torch.manual_seed(0)
    metainfo = dict(ori_shape=size, img_shape=size, img_path='x.jpg')
    data = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, *size))), metainfo=metainfo) for _ in range(count)]
    return torch.randn(count, 3, *size), data


@pytest.mark.parametrize('align_corners', [False, True])
def test_whole_inference_and_training_of_odd_sizes(align_corners):
    model = segmentor(align_corners=align_corners)
    inputs, data = batch((65, 97), 2)
    losses = model.loss(inputs, data)
    assert {'decode.loss_ce', 'decode.temperature', 'aux.loss_ce'} <= losses.keys()
    total, logged = model.parse_losses(losses)
    assert logged['decode.temperature'] == 1
    assert total.isfinite()
    model.eval()
    with torch.no_grad():
        result = model.predict(inputs, data)
        assert result[0].seg_logits.data.shape == (3, 65, 97)
        assert torch.equal(result[0].seg_logits.data, model(inputs, mode='tensor')[0, :, :65, :97])


def test_slide_inference_averages_cropped_windows():
    model = segmentor(dict(mode='slide', crop_size=(64, 50), stride=(40, 40))).eval()
    inputs, data = batch((65, 90))
    with torch.no_grad():
        result = model.predict(inputs, data)[0].seg_logits.data
        total, count = torch.zeros(3, 65, 90), torch.zeros(1, 65, 90)
        for top in (0, 1):
            for left in (0, 40):
                window = model(inputs[..., top : top + 64, left : left + 50], mode='tensor')[0, :, :64, :50]
                total[:, top : top + 64, left : left + 50] += window
                count[:, top : top + 64, left : left + 50] += 1
    torch.testing.assert_close(result, total / count)


def test_test_time_augmentation_averages_probabilities():
    model = segmentor().eval()
    with torch.no_grad():
        model.decode_head.upsample.log_temperature.fill_(-13.0)  # untrained logits are about 1e-6
    wrapper = SegTTAModel(module=model)
    inputs, data = batch((65, 90))
    flipped = [SegDataSample(metainfo=dict(ori_shape=(65, 90), img_shape=(65, 90), img_path='x.jpg', flip=True, flip_direction='horizontal'))]
    with torch.no_grad():
        merged = wrapper.merge_preds([model.predict(inputs, data) + model.predict(inputs.flip(-1), flipped)])
        direct = model(inputs, mode='tensor')[..., :65, :90].softmax(1)
        mirror = model(inputs.flip(-1), mode='tensor')[..., :65, :90].flip(-1).softmax(1)
    expected = ((direct + mirror) / 2).argmax(1)
    assert torch.equal(merged[0].pred_sem_seg.data, expected)


def test_a_checkpoint_is_enough_for_testing(tmp_path):
    """init_model and tools/test.py never call init_weights; the file that W came from may be gone."""
    path = tmp_path / 'W.pth'
    upsample = dict(in_channels=7, scale_factor=32, weight=str(path))
    torch.save(fit_dupsampling(labels()[:, 0], 3, 32, 7), path)
    trained = segmentor(upsample=upsample).eval()
    path.unlink()
    fresh = segmentor(upsample=upsample, init_weights=False).eval()
    input = torch.randn(1, 3, 64, 64)
    with pytest.raises(RuntimeError, match='W must be fitted before the first forward'):
        fresh(input, mode='tensor')
    fresh.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(input, mode='tensor'), trained(input, mode='tensor'))


@pytest.mark.parametrize('type', ['DUpsamplingHead', 'BilinearFusionHead'])
def test_padding_does_not_dilute_the_loss(type):
    """Half a label of void leaves the loss of the other half as it is."""
    head = small_head(type)
    head.init_weights()
    logits = torch.randn(1, 3, 32, 32)
    label = torch.randint(0, 3, (1, 1, 32, 32))
    label[..., 16:] = 255
    loss = head.loss_by_feat(logits, samples(label))['loss_ce']
    torch.testing.assert_close(loss, F.cross_entropy(logits[..., :16], label[:, 0, :, :16]))


def test_a_ratio_that_is_not_the_stride_is_an_error_in_training_and_prediction():
    """A ratio of 16 on features of stride 8 trained without a word and showed the top left quarter of the scene."""
    head = small_head(low_level=(), upsample=dict(scale_factor=16), in_channels=8, in_index=0)
    feature = (torch.randn(2, 8, 14, 18),)  # stride 8 of 112 x 144
    message = r'overhang it by less than a window \(16\), but got \(224, 288\) for \(112, 144\); scale_factor must be the stride of the features'
    with pytest.raises(ValueError, match=message):
        head.loss(feature, samples(labels(2, (112, 144))), {})
    with pytest.raises(ValueError, match=message):
        head.eval().predict(feature, [dict(img_shape=(112, 144))] * 2, {})
    head = small_head(low_level=(), upsample=dict(scale_factor=16), in_channels=8, in_index=0, objective='regression')
    with pytest.raises(ValueError, match=r'overhang it by less than a window \(1\), but got \(14, 18\) for \(7, 9\)'):
        head.loss(feature, samples(labels(2, (112, 144))), {})


@pytest.mark.parametrize('size', [(375, 500), (33, 64), (79, 65)])
def test_a_backbone_that_rounds_down_needs_padded_images(size):
    """VGG's poolings drop the last rows: a training on whole crops went well, and its validation failed with a hint at the ratio."""
    vgg = dict(type='PPoolVGG', pool=dict(type='MaximumPool2d'), fc_channels=16, fc6_kernel_size=3)
    head = dict(type='DUpsamplingHead', in_channels=16, channels=8, num_classes=3, dilations=(1, 2))
    head['upsample'] = dict(in_channels=7, scale_factor=16, init='random')
    data = dict(inputs=[torch.zeros(3, *size, dtype=torch.uint8)], data_samples=[SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))])

    def predict(**more):
        config = dict(type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor', **more), backbone=vgg, decode_head=head)
        with torch.no_grad():
            return MODELS.build(ConfigDict(config, test_cfg=dict(mode='whole'))).eval().test_step(data)[0]

    with pytest.raises(ValueError, match=r'the backbone rounds sizes down, .*data_preprocessor=dict\(test_cfg=dict\(size_divisor=STRIDE\)\)'):
        predict()
    assert predict(test_cfg=dict(size_divisor=16)).pred_sem_seg.shape == size
