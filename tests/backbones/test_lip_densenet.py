"""LIPDenseNet: the paper's costs, its poolings and torchvision's keys. What it does like the other chains of stages: test_staged.py."""

import re

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.runner import save_checkpoint
from torch.testing import assert_close

from mmpool_ext.layers import BottleneckLogit, LIPPool2d, SimplifiedLogit

torchvision = pytest.importorskip('torchvision')
LIPDenseNet = pytest.importorskip('mmpool_ext.backbones.lip_densenet').LIPDenseNet

AVERAGE = dict(type='AveragePool2d')
# LIP paper, Table 4. Million parameters and 10^9 multiply-adds at 224x224, classifier included
PAPER = {'DenseNet-BC-121': (None, 8.0, 2.88), 'LIP-DenseNet-BC-121': (dict(type='LIPPool2d'), 8.7, 4.13)}


def lips(network):
    return [name for name, module in network.named_modules() if isinstance(module, LIPPool2d)]


@pytest.mark.parametrize('row', PAPER.values(), ids=PAPER)
def test_cost_of_table_4(row):
    """Multiply-adds of mmengine's default handlers, which count batch normalisation and no ReLU or pooling; the classifier is 1024 to 1000."""
    pool, parameters, multiply_adds = row
    network = LIPDenseNet(pool=pool, out_indices=(3,)).eval()
    counted = sum(parameter.numel() for parameter in network.parameters()) + 1025 * 1000
    assert counted == pytest.approx(parameters * 1e6, rel=0.01)
    counter = FlopAnalyzer(network, torch.zeros(1, 3, 64, 64)).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert counter.total() * (224 / 64) ** 2 + 1024 * 1000 == pytest.approx(multiply_adds * 1e9, rel=0.01)


@pytest.mark.parametrize('depth', [121, 161, 169, 201])
def test_without_surgery_it_is_torchvision(depth):
    original, network = torchvision.models.get_model(f'densenet{depth}', weights=None).eval(), LIPDenseNet(depth, None).eval()
    report = network.load_state_dict(original.state_dict(), strict=False)
    assert report.unexpected_keys == ['classifier.weight', 'classifier.bias']
    assert not report.missing_keys
    image = torch.rand(1, 3, 65, 64)
    assert_close(network(image)[-1], original.features(image).relu())


def test_four_lips_and_their_logits():
    network = LIPDenseNet()
    assert lips(network) == ['features.pool0', *(f'features.transition{i}.pool' for i in (1, 2, 3))]
    assert type(network.features.pool0.logit) is SimplifiedLogit
    assert (network.features.pool0.kernel_size, network.features.pool0.padding) == (3, 1)
    for transition, channels in ((network.features.transition1, 128), (network.features.transition2, 256), (network.features.transition3, 512)):
        assert type(transition.pool.logit) is BottleneckLogit
        assert (transition.pool.kernel_size, transition.pool.stride, transition.pool.padding) == (2, 2, 0)
        assert transition.pool.logit.trunk.conv1.in_channels == transition.pool.logit.top.conv.out_channels == channels


def test_logit_of_a_config_goes_to_every_lip():
    network = LIPDenseNet(pool=dict(type='LIPPool2d', logit=dict(type='ProjectionLogit')))
    assert [network.get_submodule(name).logit.conv.kernel_size for name in lips(network)] == [(1, 1)] * 4


@pytest.mark.parametrize('checkpoint', [False, True])
def test_initialised_lip_equals_average_pooling(tmp_path, checkpoint):
    average, path = LIPDenseNet(pool=AVERAGE), str(tmp_path / 'average.pth')
    average.init_weights()
    save_checkpoint(average.state_dict(), path)
    lip = LIPDenseNet(init_cfg=dict(type='Pretrained', checkpoint=path) if checkpoint else None)
    lip.init_weights()
    if not checkpoint:
        lip.load_state_dict(average.state_dict(), strict=False)
    image = torch.randn(2, 3, 65, 97)
    for ours, expected in zip(lip.eval()(image), average.eval()(image), strict=True):
        assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('with_cp', [False, True])
def test_every_parameter_gets_a_gradient(with_cp):
    """The zeroed convolutions stop the gradients of what lies before them in the logit at first, none after a step."""
    torch.manual_seed(0)
    network = LIPDenseNet(with_cp=with_cp)
    network.init_weights()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for step in range(2):
        outputs = network(torch.randn(2, 3, 64, 64))
        optimizer.zero_grad()
        torch.autograd.backward(outputs, [torch.randn_like(output) for output in outputs])
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert step < 1 or parameter.grad.any(), name
        optimizer.step()


def test_recomputation_changes_nothing():
    network, recomputing, image = LIPDenseNet(), LIPDenseNet(with_cp=True), torch.randn(2, 3, 64, 64)
    recomputing.load_state_dict(network.state_dict())
    saved = []
    for net in (network, recomputing):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, kept=kept: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
            out = net(image)[-1]
        saved.append(sum(kept))
        out.square().sum().backward()
    assert_close(recomputing.features.conv0.weight.grad, network.features.conv0.weight.grad, rtol=1e-3, atol=1e-3)
    assert saved[1] < saved[0]


def test_old_names_of_torchvisions_checkpoints(tmp_path):
    torch.manual_seed(0)
    state = torchvision.models.densenet121(weights=None).state_dict()
    old = {re.sub(r'(layer\d+\.(?:norm|conv))(\d)', r'\1.\2', key): tensor for key, tensor in state.items()}
    assert 'features.denseblock1.denselayer1.norm.1.weight' in old
    save_checkpoint(old, str(tmp_path / 'densenet121.pth'))
    network = LIPDenseNet(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'densenet121.pth')))
    network.init_weights()
    ours = network.state_dict()
    assert {key for key in ours if key not in state} == {key for key in ours if '.logit.' in key}
    for key in ours:
        if key in state:
            assert_close(ours[key], state[key])


def test_frozen_lips_that_a_checkpoint_lacks_are_named(tmp_path):
    save_checkpoint(LIPDenseNet(pool=None).state_dict(), str(tmp_path / 'plain.pth'))
    network = LIPDenseNet(frozen_stages=1, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth')))
    frozen = r'LIPDenseNet: frozen tensors start fresh and will not be trained: features.pool0.logit.conv.weight, features.pool0.logit.norm.bias'
    with pytest.warns(UserWarning, match=frozen):
        network.init_weights()


@pytest.mark.parametrize(('out_indices', 'least'), [((0, 1, 2, 3), 29), ((2,), 13), ((1,), 5), ((0,), 3)])
def test_small_image(out_indices, least):
    network = LIPDenseNet(out_indices=out_indices)
    network(torch.randn(2, 3, least, least))
    with pytest.raises(ValueError, match=rf'LIPDenseNet: image must be at least {least} pixels high and wide, but got \({least}, {least - 1}\)'):
        network(torch.randn(2, 3, least, least - 1))


def test_bad_depth():
    with pytest.raises(ValueError, match=r'LIPDenseNet: depth must be one of \(121, 161, 169, 201\), but got 50'):
        LIPDenseNet(50)
