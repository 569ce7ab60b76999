"""What the tests of the three pooling ops share: inputs in every layout, and one call that gives output and gradients."""

import dataclasses
from collections.abc import Callable

import pytest
import reference
import torch
from hypothesis import strategies as st

from mmpool_ext.ops import lan_pool2d, lip_pool2d, polynomial_pool2d


@dataclasses.dataclass(frozen=True)
class Op:
    """A pooling op, its oracle, and how to draw its arguments."""

    public: Callable
    oracle: Callable
    draw_input: Callable
    draw_weight: Callable
    weight_per_window: bool = False

    @property
    def name(self):
        return self.public.__name__

    def arguments(self, shape, window, generator):
        """Random float64 input, weight and output gradient for a window given as keywords."""
        input = self.draw_input(shape, generator)
        output = list(reference.output_shape(shape, **window))
        weight = self.draw_weight(output if self.weight_per_window else shape, generator)
        return input, weight, torch.randn(output, generator=generator, dtype=torch.float64)


def _randn(shape, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _relu(shape, generator):
    return (_randn(shape, generator) + 0.3).clamp(min=0)


def _exponents(shape, generator):
    """All above 2 in every other draw: the CPU has kernels of their own for these."""
    return 10 * _randn(shape, generator).abs() + 2 * torch.randint(2, (), generator=generator)


OPS = {
    'lip': Op(lip_pool2d, reference.lip_pool2d, _randn, lambda shape, generator: 4 * _randn(shape, generator)),
    'lan': Op(lan_pool2d, reference.lan_pool2d, _randn, _relu),
    'polynomial': Op(polynomial_pool2d, reference.polynomial_pool2d, _relu, _exponents, True),
}

DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU'))]

LAYOUTS: dict[str, Callable] = {
    'contiguous': lambda x: x,
    'channels_last': lambda x: x.contiguous(memory_format=torch.channels_last),
    'sliced': lambda x: torch.nn.functional.pad(x, (1, 2, 1, 0))[:, :, 1:, 1:-2],
    'permuted': lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    'expanded': lambda x: x[:, :1].expand_as(x),
}


@st.composite
def windows(draw, dilated=True):
    """Draw an input size and the window keywords that fit it."""
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))  # noqa: E731
    kernel = pair(1, 5)
    window = {
        'kernel_size': kernel,
        'stride': pair(1, 4),
        'padding': tuple(draw(st.integers(0, k // 2)) for k in kernel),
        'ceil_mode': draw(st.booleans()),
    }
    gaps = pair(1, 3) if dilated else (1, 1)
    if dilated:
        window['dilation'] = gaps
    size = [
        draw(st.integers(max(1, d if p else 1, d * (k - 1) + 1 - 2 * p), d * (k - 1) + 14))
        for k, p, d in zip(kernel, window['padding'], gaps, strict=True)
    ]
    return (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *size), window


def run(op, input, weight, grad_output, **kwargs):
    """Return output, gradient of input and gradient of the weight."""
    input, weight = input.detach().requires_grad_(), weight.detach().requires_grad_()
    output = op.public(input, weight, **kwargs)
    return output.detach(), *torch.autograd.grad(output, (input, weight), grad_output)
