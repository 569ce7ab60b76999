"""What tools expect of every module: shapes without memory (the meta device), empty batches, hooks on all gradients,
torch.fx."""

import copy
import re

import pytest
import test_export
import torch
from mmengine.registry import MODELS

LAYERS = {f'layer-{name}': dict(config, in_channels=3) for name, config in test_export.POOLS.items()}
NETWORKS = [family for family in test_export.FAMILIES if family != 'layers']


def module_of(name):
    return MODELS.build(LAYERS[name]) if name in LAYERS else copy.deepcopy(test_export.build(name))


def shapes(output):
    return [tuple(one.shape) for one in test_export.flat(output)]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', [*LAYERS, *NETWORKS])
def test_shapes_on_the_meta_device_and_of_an_empty_batch(name):
    module, input = module_of(name), torch.rand(2, 3, 65, 96)
    module.eval()  # mmseg's ResNet returns None from it
    with torch.no_grad():
        expected = shapes(module(input))
        if name != 'PyramidRepresentationHead-ANL':  # mmseg's attention cannot reshape an empty batch
            assert shapes(module(input[:0])) == [(0, *shape[1:]) for shape in expected]
        assert shapes(module.to('meta')(input.to('meta'))) == expected


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['LIPResNet', 'LIPDenseNet', 'PPoolResNet', 'PPoolXception'])
def test_networks_are_built_without_memory(name):
    with torch.device('meta'):
        network = MODELS.build(test_export.BACKBONES[name])
        assert {parameter.device.type for parameter in network.parameters()} == {'meta'}
        got = shapes(network(torch.empty(2, 3, 65, 96)))
    assert got == shapes(test_export.build(name)(torch.zeros(2, 3, 65, 96)))


# PPoolResNet and PPoolXception hold blocks of torchvision and timm, which add the shortcut in place: docs/faq.md
@pytest.mark.parametrize('name', [*LAYERS, 'LIPResNet', 'LIPResNet-DPP', 'LIPDenseNet', 'PPoolVGG', 'PPoolInceptionV2', 'PPoolInceptionV2-plain'])
def test_backward_hooks_see_the_gradient_of_every_module(name):
    module, seen = module_of(name).train(), set()
    for key, part in module.named_modules():
        part.register_full_backward_hook(lambda part, grad_input, grad_output, key=key: seen.add(key))
    input = torch.rand(2, 3, 64, 96, requires_grad=True)
    sum(output.square().sum() for output in test_export.flat(module(input))).backward()
    used = {key.rpartition('.')[0] for key, parameter in module.named_parameters() if parameter.grad is not None}
    # Not called: their weights are read and brought to the precision of the input
    assert {key for key in used - seen if not re.search(r'side_branch\.\d$|smooth$', key)} == set()
    assert '' in seen
    assert input.grad.isfinite().all()


# Not Repooled and Tapped over foreign networks, nor heads, which ask for sizes in Python: docs/faq.md
TRACED = [*LAYERS, *(name for name in test_export.BACKBONES if name not in ('Repooled', 'Repooled-timm', 'Tapped'))]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', TRACED)
def test_torch_fx_records_one_graph_for_every_size(name):
    module = module_of(name).eval()
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(module))
    for shape in ((2, 3, 64, 96), (1, 3, 65, 97)):
        input = test_export.image(shape)
        for got, expected in zip(test_export.flat(traced(input)), test_export.flat(module(input)), strict=True):
            assert got.shape == expected.shape
            assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_features_by_name_from_torchvision():
    extraction = pytest.importorskip('torchvision.models.feature_extraction')
    network = test_export.build('LIPResNet')
    input = test_export.image((1, 3, 65, 96))
    features = extraction.create_feature_extractor(network, {'stem_pool': 'stem', 'layer1': 'layer1'})(input)
    assert features['stem'].shape == (1, 8, 17, 24)
    torch.testing.assert_close(features['layer1'], network.layer1(features['stem']), rtol=1e-4, atol=1e-4)
