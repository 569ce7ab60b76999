"""Taps on the inner modules of registered backbones."""

import copy
import io
import pickle

import pytest
import torch

pytest.importorskip('mmseg')
pytest.importorskip('timm')

from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS

from mmpool_ext.backbones import Tapped
from mmpool_ext.backbones.named import build_backbone

RESNET = dict(depth=50, stem_channels=128, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), base_channels=64)
TAPS = ['stem.8', 'layer1.1.norm3', 'layer3.5.norm3']


def test_values_are_those_that_left_the_modules():
    """By hand: in-place additions and activations after the tap must not show."""
    torch.manual_seed(0)
    network = Tapped('mmseg.ResNetV1c', TAPS, **RESNET)
    network.eval()  # mmseg's returns None
    input = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        stem, b1u2c3, b3u6c3, last = network(input)
        value = network.stem(input)
        torch.testing.assert_close(stem, value)
        value = network.layer1[0](network.maxpool(value))

        def conv3(unit, value):
            value = unit.relu(unit.bn1(unit.conv1(value)))
            return unit.bn3(unit.conv3(unit.relu(unit.bn2(unit.conv2(value)))))

        torch.testing.assert_close(b1u2c3, conv3(network.layer1[1], value))
        assert b1u2c3.min() < 0
        value = network.layer2(network.layer1[2](network.layer1[1](value)))
        for unit in list(network.layer3)[:5]:
            value = unit(value)
        torch.testing.assert_close(b3u6c3, conv3(network.layer3[5], value))
        torch.testing.assert_close(last, network.layer4(network.layer3[5](value)))


def test_channels_and_sizes_of_the_papers_features():
    """Table 2 and 3: conv1_3 / 2, b1u2c3 / 4, b3u6c3 / 16, efb2u1c2 / 4, mfb1u16c3 / 16, at 513 x 513."""
    input = torch.empty(1, 3, 513, 513, device='meta')
    shapes = [tuple(f.shape[1:3]) for f in Tapped('mmseg.ResNetV1c', TAPS, **RESNET).to('meta')(input)]
    assert shapes == [(128, 257), (256, 129), (1024, 33), (2048, 33)]
    for stride in (16, 32):
        network = Tapped('timm.resnet50s.gluon_in1k', ['act1', 'layer1.1.bn3', 'layer3.5.bn3'], output_stride=stride, out_indices=(4,)).to('meta')
        assert [tuple(f.shape[1:3]) for f in network(input)] == [(128, 257), (256, 129), (1024, 33), (2048, 33 if stride == 16 else 17)]
    for name, middle in (('xception65', 18), ('xception71', 20)):
        taps = ['blocks_1.stack.conv2', f'blocks_{middle}.stack.conv3']
        network = Tapped(f'timm.{name}', taps, output_stride=16, out_indices=(4,)).to('meta')
        assert [tuple(f.shape[1:3]) for f in network(input)] == [(256, 129), (728, 33), (2048, 33)]


def test_xception_tap_is_before_the_in_place_relu_that_follows():
    torch.manual_seed(0)
    network = Tapped('timm.xception65', ['blocks_1.stack.conv2'], output_stride=16, out_indices=(4,)).eval()
    input = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        tap, _ = network(input)
        value = network.blocks_0(network.stem_1(network.stem_0(input)))
        stack = network.blocks_1.stack
        torch.testing.assert_close(tap, stack.conv2(stack.act2(stack.conv1(stack.act1(value)))))
    assert tap.min() < 0


def test_bn3_and_norm3_are_the_same():
    torch.manual_seed(0)
    input = torch.randn(1, 3, 33, 33)
    outputs = []
    for tap in ('layer1.1.norm3', 'layer1.1.bn3'):
        torch.manual_seed(1)
        network = Tapped('mmseg.ResNetV1c', [tap], **RESNET)
        network.eval()
        outputs.append(network(input)[0])
    assert torch.equal(*outputs)


@pytest.mark.parametrize('with_cp', [False, True])
def test_gradients_flow_through_a_tap_also_with_checkpointing(with_cp):
    gradients = []
    for checkpoint in (False, with_cp):
        torch.manual_seed(0)
        network = Tapped('mmseg.ResNetV1c', TAPS[1:], with_cp=checkpoint, **RESNET)
        assert network.layer1[0].with_cp == checkpoint
        assert not network.layer1[1].with_cp
        network.train()
        outputs = network(torch.randn(2, 3, 33, 33))
        sum((f * torch.randn_like(f)).sum() for f in outputs[:2]).backward()
        gradients.append(network.layer1[1].conv3.weight.grad)
        assert network.layer1[0].conv1.weight.grad.abs().sum() > 0
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_keeps_keys_copies_pickles_and_survives_replaced_norms():
    network = Tapped('mmseg.ResNetV1c', ['layer1.1.norm3'], norm_cfg=dict(type='SyncBN'), **RESNET)
    assert network.state_dict().keys() == build_backbone('mmseg.ResNetV1c', norm_cfg=dict(type='SyncBN'), **RESNET).state_dict().keys()
    network = revert_sync_batchnorm(network)  # new norm modules, as init_model on a CPU makes them
    network.eval()
    input = torch.randn(1, 3, 33, 33)
    expected = network(input)
    stream = io.BytesIO()
    torch.save(network, stream)
    stream.seek(0)
    for twin in (copy.deepcopy(network), torch.load(stream, weights_only=False), pickle.loads(pickle.dumps(network))):
        assert all(torch.equal(a, b) for a, b in zip(twin(input), expected, strict=True))
        with torch.no_grad():
            next(twin.parameters()).add_(1)
        assert not torch.equal(twin(input)[0], network(input)[0])


def test_is_registered():
    network = MODELS.build(dict(type='Tapped', backbone='mmseg.ResNetV1c', taps=['stem.8'], depth=18))
    assert len(network(torch.randn(1, 3, 33, 33))) == 2


def test_unknown_tap_names_the_nearest():
    with pytest.raises(ValueError, match=r"a tap must name a module of ResNetV1c, but got 'layer1.1.norm4'; close to it: layer1.1."):
        Tapped('mmseg.ResNetV1c', ['layer1.1.norm4'], depth=18)


@pytest.mark.parametrize(
    ('taps', 'message'),
    [
        (['layer1.0.relu'], "a tap must be used once in a forward, but got a second use of 'layer1.0.relu'"),
        (['layer4.0'], r"each tap must be used in forward, but got no output of \['layer4.0'\]"),
    ],
)
def test_taps_that_cannot_be_read(taps, message):
    network = Tapped('mmseg.ResNetV1c', taps, depth=18)
    network.layer4.forward = lambda input: input  # leaves layer4.0 out
    with pytest.raises(RuntimeError, match=f'Tapped: {message}'):
        network(torch.randn(1, 3, 33, 33))


def test_a_tap_inside_a_reentrant_checkpoint_is_an_error():
    from torch.utils.checkpoint import checkpoint

    network = Tapped('mmseg.ResNetV1c', ['layer1.0.bn2'], depth=18)
    block = network.layer1[0]
    forward = block.forward
    block.forward = lambda x: checkpoint(forward, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match=r"must not stand inside a reentrant checkpoint, but got 'layer1.0.bn2'"):
        network(torch.randn(1, 3, 33, 33))


def test_the_output_of_a_tap_must_be_a_tensor():
    network = Tapped('mmseg.ResNetV1c', ['layer1'], depth=18)
    network.layer1.register_forward_hook(lambda module, args, output: (output,), prepend=True)
    with pytest.raises(RuntimeError, match="must be a tensor, but got tuple from 'layer1'"):
        network(torch.randn(1, 3, 33, 33))
