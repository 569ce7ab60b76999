"""SoftPool as an op: against LIP's oracle with the input as logit, on the CPU, and the CUDA kernels as host code or on a GPU."""

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from pooling_cases import DEVICES, LAYOUTS, windows
from releases import needs_torch
from torch.testing import assert_close

from mmpool_ext.ops import _extension, lip_pool2d, soft_pool2d

native = pytest.mark.skipif(not _extension.LOADED, reason=f'compiled ops are not built: {_extension.BUILD}')
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
NUMBER = 3  # in plan.h's Pools


def oracle(input, grad_output, **window):
    output, through_value, through_weight = reference.lip_pool2d(input.detach(), input.detach(), grad_output, **window)
    return output, through_value + through_weight


def run(input, grad_output, **kwargs):
    input = input.detach().requires_grad_()
    output = soft_pool2d(input, **kwargs)
    return output.detach(), *torch.autograd.grad(output, input, grad_output)


def draw(shape, window, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    output = reference.output_shape(shape, **window)
    return 3 * torch.randn(shape, generator=generator, dtype=dtype), torch.randn(output, generator=generator, dtype=dtype)


def check(results, expected):
    for got, want in zip(results, expected, strict=True):
        eps = torch.finfo(got.dtype).eps
        assert_close(got.double(), want, rtol=max(eps, 1e-13), atol=max(1e-12, 4e-5 * (eps > 1e-15)))


@pytest.mark.parametrize('device', DEVICES)
@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**16))
def test_output_and_gradient_are_the_oracle_s(device, data, layout, dtype, seed):
    shape, window = data.draw(windows())
    tensors = [LAYOUTS[layout](tensor) for tensor in draw(shape, window, seed, dtype)]
    check([result.cpu() for result in run(*(tensor.to(device) for tensor in tensors), **window)], oracle(*tensors, **window))


@given(data=st.data(), dtype=st.sampled_from(DTYPES), last=st.booleans(), fixed=st.sampled_from([None, 2, 3]), seed=st.integers(0, 2**16))
def test_cuda_kernels_as_host_code(emulated, data, dtype, last, fixed, seed):
    shape, window = data.draw(windows())
    if fixed:
        shape, window = (2, 8, 9, 14), {'kernel_size': (fixed,) * 2, 'stride': (2, 2), 'padding': (fixed - 2,) * 2}
    input, grad_output = draw(shape, window, seed, dtype)
    layout = torch.channels_last if last else torch.contiguous_format
    output, grad_input, unwritten = emulated.pool(NUMBER, input, input, grad_output, window, layout)
    check((output, grad_input), oracle(input, grad_output, **window))
    assert unwritten.isnan().all()


@native
def test_same_as_lip_of_itself_bit_for_bit_and_derivatives_of_second_order():
    input, _ = draw((2, 3, 9, 12), {'kernel_size': (3, 3), 'stride': (2, 2), 'padding': (1, 1)}, 0, torch.float32)
    assert torch.equal(soft_pool2d(input), lip_pool2d(input, input))
    small = input[:1, :1, :5, :5].double().requires_grad_()
    assert torch.autograd.gradcheck(soft_pool2d, small)
    assert torch.autograd.gradgradcheck(soft_pool2d, small)


@native
@needs_torch(2, 4)
def test_opcheck_and_one_graph():
    input = torch.randn(2, 3, 7, 9, requires_grad=True)
    torch.library.opcheck(torch.ops.mmpool_ext.soft_pool2d, (input, (3, 3), (2, 2), (1, 1), (1, 1), False))
    assert_close(torch.compile(soft_pool2d, fullgraph=True, backend='aot_eager')(input), soft_pool2d(input))


def test_bad_input():
    with pytest.raises(ValueError, match=r'soft_pool2d: padding must be at most half of the window'):
        soft_pool2d(torch.rand(1, 1, 8, 8), padding=3)
    with pytest.raises(RuntimeError, match=r"soft_pool2d: backend='native' must find the op compiled for meta"):
        soft_pool2d(torch.rand(1, 1, 8, 8, device='meta'), backend='native')
