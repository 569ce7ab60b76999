"""Layers with convolutions inside; poolings without them are in test_compared_pools.py, whole backbones in test_inherited_configs.py."""

import copy

import pytest
import torch
from releases import HALF
from torch import nn

pytest.importorskip('mmcv')
from mmengine.registry import MODELS

import mmpool_ext  # noqa: F401 registers the layers

LAYERS = {
    **{f'LIPPool2d, {logit}': dict(type='LIPPool2d', in_channels=8, logit=dict(type=logit)) for logit in ('ProjectionLogit', 'SimplifiedLogit')},
    'LIPPool2d, BottleneckLogit': dict(type='LIPPool2d', in_channels=8, logit=dict(type='BottleneckLogit', mid_channels=4)),
    'DUpsampling': dict(type='DUpsampling', in_channels=8, out_channels=3, scale_factor=2, init='random'),
    'CoarseToFineContext': dict(type='CoarseToFineContext', in_channels=8, channels=8, key_channels=4),
    'CoarseToFineContext, no norm': dict(type='CoarseToFineContext', in_channels=8, channels=8, key_channels=4, norm_cfg=None),
}
# The context's products of features need its norms for large activations. Norms cannot tell 1e-4 from a constant: its variance is below their eps.
SIZES = {'CoarseToFineContext': (1.0, 700.0, 1e4), 'CoarseToFineContext, no norm': (1e-4, 1.0)}
CASES = [(name, size) for name in LAYERS for size in SIZES.get(name, (1e-4, 1.0, 700.0, 1e4))]


@pytest.mark.parametrize('autocast', [False, True], ids=['cast', 'autocast'])
@pytest.mark.parametrize('dtype', [HALF, torch.bfloat16])
@pytest.mark.parametrize(('name', 'size'), CASES)
def test_half_precision(name, size, dtype, autocast):
    """The dtype comes out that goes in, and the values are those of the same weights in float64."""
    torch.manual_seed(0)
    layer = MODELS.build(LAYERS[name]).train()  # the context's norms see what its convolutions give, as in training
    for parameter in layer.parameters():
        if parameter.ndim > 1 and not parameter.any():  # LIP starts as average pooling
            nn.init.normal_(parameter, std=0.1)
    input = (size * torch.rand(2, 8, 16, 16)).to(dtype)
    run = copy.deepcopy(layer) if autocast else copy.deepcopy(layer).to(dtype)
    double = copy.deepcopy(layer if autocast else run).double()
    leaf = input.clone().requires_grad_()
    with torch.autocast('cpu', dtype=dtype, enabled=autocast):
        output = run(leaf)
    output = output if torch.is_tensor(output) else output[-1]
    assert output.dtype == dtype
    expected = double(input.double())
    expected = expected if torch.is_tensor(expected) else expected[-1]
    error = (output.double() - expected).abs().max() / expected.abs().max()
    assert error < 16 * torch.finfo(dtype).eps
    output.backward(torch.full_like(output, 0.01))
    assert leaf.grad.dtype == dtype
    assert leaf.grad.isfinite().all()
