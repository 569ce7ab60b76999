"""SoftPool2d: LIP with the input as its own logit."""

import math

import reference
import torch

from mmpool_ext.layers import SoftPool2d


def test_by_hand():
    input = torch.tensor([[[[0.0, math.log(2)], [0.0, math.log(4)]]]])
    assert math.isclose(SoftPool2d(1)(input).item(), (2 * math.log(2) + 4 * math.log(4)) / 8, rel_tol=1e-6)


def test_against_float64_reference_with_the_gradient_of_both_paths():
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(2, 2, 7, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    output = SoftPool2d(2, 3, 2, 1)(input)
    grad_output = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    expected, through_value, through_logit = reference.lip_pool2d(input.detach(), input.detach(), grad_output)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(torch.autograd.grad(output, input, grad_output)[0], through_value + through_logit)
