"""The ops under ``torch.func``, and which form of an op is taken while a graph is made."""

import pytest
import torch
from torch.func import grad, vmap

from mmpool_ext.ops import gated_lip_pool2d, instance_norm_relu, lan_pool2d, lip_pool2d, polynomial_pool2d
from mmpool_ext.ops.tracing import is_exporting, top_left

OPS = {
    'lip': lip_pool2d,
    'lan': lambda input, weight: lan_pool2d(input, weight.abs()),
    'polynomial': lambda input, weight: polynomial_pool2d(input.abs(), weight.abs()[..., :3, :3]),
    'gated': gated_lip_pool2d,
    'gated-norm': lambda input, weight: gated_lip_pool2d(input, weight, torch.ones(3), torch.zeros(3)),
    'norm': lambda input, weight: instance_norm_relu(input * weight, torch.ones(3), torch.zeros(3)),
}


@pytest.mark.parametrize('name', OPS)
def test_vmap_of_grad_is_the_gradient_of_each_sample(name):
    generator = torch.Generator().manual_seed(0)
    inputs, weights = (torch.randn(4, 2, 3, 6, 6, generator=generator) for _ in range(2))

    def loss(input, weight):
        return OPS[name](input, weight).square().sum()

    got = vmap(grad(loss, argnums=(0, 1)))(inputs, weights)
    for index in range(4):
        tensors = [inputs[index].clone().requires_grad_(), weights[index].clone().requires_grad_()]
        for one, expected in zip(got, torch.autograd.grad(loss(*tensors), tensors), strict=True):
            torch.testing.assert_close(one[index], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', OPS)
def test_gradient_of_a_gradient_under_torch_func(name):
    generator = torch.Generator().manual_seed(1)
    input, weight = (torch.randn(1, 3, 4, 4, generator=generator) for _ in range(2))
    weight = torch.nn.functional.pad(weight, (0, 2, 0, 2)) if name == 'polynomial' else weight
    if name == 'polynomial':
        input = torch.nn.functional.pad(input, (0, 2, 0, 2), value=0.5)

    def slope(input):
        return grad(lambda tensor: OPS[name](tensor, weight).square().sum())(input).square().sum()

    tensor = input.clone().requires_grad_()
    first = torch.autograd.grad(OPS[name](tensor, weight).square().sum(), tensor, create_graph=True)[0]
    torch.testing.assert_close(grad(slope)(input), torch.autograd.grad(first.square().sum(), tensor)[0], rtol=1e-4, atol=1e-4)


def test_is_exporting_in_torch_export_and_not_in_torch_compile():
    class Module(torch.nn.Module):
        def forward(self, input):
            return input + (1 if is_exporting() else 2)

    input = torch.zeros(2)
    assert not is_exporting()
    if hasattr(torch.compiler, 'is_exporting'):
        assert torch.export.export(Module(), (input,)).module()(input).tolist() == [1, 1]
    assert torch.jit.trace(Module(), input, check_trace=False)(input).tolist() == [1, 1]
    assert torch.compile(Module(), fullgraph=True, backend='eager')(input).tolist() == [2, 2]


def test_top_left_is_a_slice(monkeypatch):
    input = torch.arange(24.0).reshape(1, 2, 3, 4)
    monkeypatch.setattr('mmpool_ext.ops.tracing.is_exporting', lambda: True)
    assert torch.equal(top_left(input, (2, 3)), input[..., :2, :3])
