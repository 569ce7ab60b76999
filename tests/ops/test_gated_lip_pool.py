"""The pooling that computes its logit's normalization and gate: against float64, and against the same in parts."""

import pytest
import torch
from gated_cases import arguments, gradient_like, oracle, run_gated
from hypothesis import given, settings
from hypothesis import strategies as st
from pooling_cases import DEVICES, LAYOUTS, windows
from releases import needs_torch
from torch.testing import assert_close

from mmpool_ext.ops import _extension, gated_lip_pool2d

native = pytest.mark.skipif(not _extension.LOADED, reason=f'compiled ops are not built: {_extension.BUILD}')
tracing = needs_torch(2, 4)
parametrize_device = pytest.mark.parametrize('device', DEVICES)
parametrize_norm = pytest.mark.parametrize('norm', [True, False], ids=['norm', 'no norm'])
parametrize_layout = pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
WINDOW = {'kernel_size': (3, 3), 'stride': (2, 2), 'padding': (1, 1)}


@pytest.mark.parametrize('backend', ['torch', pytest.param('native', marks=native)])
@parametrize_device
@parametrize_norm
@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)), seed=st.integers(0, 2**16))
@settings(max_examples=40)
def test_float64_is_the_formula(backend, device, norm, data, layout, seed):
    shape, window = data.draw(windows())
    if norm and shape[2] * shape[3] == 1:
        return
    tensors = arguments(shape, norm, torch.float64, layout, seed, device)
    grad_output = gradient_like(shape, window, torch.float64, seed, device)
    expected = oracle(grad_output.cpu(), *(tensor.cpu() for tensor in tensors), **window)
    for got, want in zip(run_gated(grad_output, *tensors, backend=backend, **window), expected, strict=True):
        assert_close(got.cpu(), want, rtol=1e-10, atol=1e-12 * max(1, want.abs().max().item()))


@native
@parametrize_device
@parametrize_norm
@pytest.mark.parametrize('dtype', TYPES[1:], ids=str)
@given(data=st.data(), layout=st.sampled_from(['contiguous', 'channels_last']), seed=st.integers(0, 2**16))
@settings(max_examples=30)
def test_errs_no_more_than_twice_as_much_as_plain_pytorch(device, norm, dtype, data, layout, seed):
    shape, window = data.draw(windows())
    if norm and shape[2] * shape[3] == 1:
        return
    tensors = arguments(shape, norm, dtype, layout, seed, device)
    grad_output = gradient_like(shape, window, dtype, seed, device)
    exact = oracle(grad_output.cpu(), *(tensor.cpu() for tensor in tensors), **window)
    ours, plain = (run_gated(grad_output, *tensors, backend=backend, **window) for backend in ('native', 'torch'))
    for got, other, want in zip(ours, plain, exact, strict=True):
        error, allowed = ((result.cpu().double() - want).abs().max() for result in (got, other))
        # beside it, one rounding of each result and some of the float32 arithmetic at the size of its terms: plain PyTorch is exact by chance in
        # small cases, and the sums of a parameter's gradient cancel
        terms = grad_output.double().abs().sum() if want.dim() == 1 else want.abs().max()
        rounding = torch.finfo(got.dtype).eps / 2 * want.abs().max() + 32 * torch.finfo(torch.float32).eps * terms.cpu().clamp(min=1)
        assert error <= 2 * allowed + rounding
        assert got.dtype == other.dtype


@native
@parametrize_device
@parametrize_layout
@pytest.mark.parametrize('case', ['constant', 'one row', 'one image', 'huge', 'tiny', 'far from zero'])
def test_extreme_responses(device, layout, case):
    shape = (1 if case == 'one image' else 2, 16, 1 if case == 'one row' else 9, 12)
    input, response, weight, bias = arguments(shape, dtype=torch.float32, device=device)
    response = {
        'constant': torch.full_like(response, 3.7),
        'huge': response * 1e15,
        'tiny': response * 1e-30,
        'far from zero': response * 0.1 + 100,
    }.get(case, response)
    tensors = [LAYOUTS[layout](input), LAYOUTS[layout](response), weight, bias]
    grad_output = gradient_like(shape, WINDOW, torch.float32, device=device)
    exact = oracle(grad_output.cpu(), *(tensor.cpu() for tensor in tensors), **WINDOW)
    ours, plain = (run_gated(grad_output, *tensors, backend=backend, **WINDOW) for backend in ('native', 'torch'))
    for got, other, want in zip(ours, plain, exact, strict=True):
        assert got.isfinite().all()
        error, allowed = ((result.cpu().double() - want).abs().max() for result in (got, other))
        # a mean of 100 has a float32 of its own rounding, 1e-5 deviations of the response
        assert error <= 2 * allowed + (2e-4 if case == 'far from zero' else 1e-5) * want.abs().max()


@native
@parametrize_device
@parametrize_norm
@parametrize_layout
def test_nan_stays_in_its_channel(device, norm, layout):
    for which in (0, 1):
        tensors = arguments((2, 16, 8, 8), norm, torch.float32, layout, device=device)
        tensors[which][1, 3, 2, 2] = float('nan')
        output, grad_input, grad_response, *_ = run_gated(gradient_like((2, 16, 8, 8), WINDOW, torch.float32, device=device), *tensors, **WINDOW)
        assert output[1, 3, 1, 1].isnan()
        for result in (output, grad_input, grad_response):
            result[1, 3] = 0
            assert result.isfinite().all()
        if not norm:  # what does not hold the pixel is untouched
            again = gated_lip_pool2d(*tensors, **WINDOW)
            assert again[1, 3].isnan().sum() == 1


@native
@parametrize_device
@parametrize_norm
@parametrize_layout
def test_two_runs_are_bit_equal(device, norm, layout):
    tensors = arguments((3, 8, 65, 53), norm, torch.float32, layout, device=device)
    grad_output = gradient_like((3, 8, 65, 53), WINDOW, torch.float32, device=device)
    for first, second in zip(run_gated(grad_output, *tensors), run_gated(grad_output, *tensors), strict=True):
        assert torch.equal(first, second)


@native
@parametrize_device
@parametrize_norm
def test_memory_format_and_dtype_of_input_are_kept(device, norm):
    for layout, memory_format in (('contiguous', torch.contiguous_format), ('channels_last', torch.channels_last)):
        for dtype in TYPES[1:]:
            tensors = arguments(norm=norm, dtype=dtype, layout=layout, device=device)
            results = run_gated(gradient_like((2, 5, 9, 12), WINDOW, dtype, device=device), *tensors)[:3]
            assert all(result.is_contiguous(memory_format=memory_format) and result.dtype == dtype for result in results)


@parametrize_device
@parametrize_norm
def test_empty_batch(device, norm):
    tensors = arguments((0, 5, 9, 12), norm, torch.float32, device=device)
    results = run_gated(torch.zeros(0, 5, 5, 6, device=device), *tensors)
    assert results[0].shape == (0, 5, 5, 6)
    assert all(not result.any() for result in results)


@parametrize_norm
@pytest.mark.parametrize('backend', ['torch', pytest.param('native', marks=native)])
def test_derivatives(norm, backend):
    tensors = [tensor.requires_grad_() for tensor in arguments((2, 2, 5, 4), norm)]
    function = lambda *tensors: gated_lip_pool2d(*tensors, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


@native
@parametrize_norm
def test_only_some_gradients_are_wanted(norm):
    tensors = arguments(norm=norm)
    for wanted in range(len(tensors)):
        grads = run_gated(gradient_like((2, 5, 9, 12), WINDOW, torch.float64), *tensors)
        alone = [tensor.detach().requires_grad_(i == wanted) for i, tensor in enumerate(tensors)]
        gated_lip_pool2d(*alone).backward(gradient_like((2, 5, 9, 12), WINDOW, torch.float64))
        assert_close(alone[wanted].grad, grads[1 + wanted])
        assert all(tensor.grad is None for i, tensor in enumerate(alone) if i != wanted)


@native
@parametrize_norm
def test_what_is_kept_for_backward(norm):
    """Input, response, parameters and four numbers a channel of an image: no map beside the two that are there anyway."""
    kept = []
    tensors = [tensor.requires_grad_() for tensor in arguments(norm=norm, dtype=torch.float32)]
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        gated_lip_pool2d(*tensors)
    given = {tensor.data_ptr() for tensor in tensors}
    assert given <= {tensor.data_ptr() for tensor in kept}
    assert [tuple(tensor.shape) for tensor in kept if tensor.data_ptr() not in given] == [(4, 2, 5) if norm else (0,)]


@tracing
@native
@parametrize_device
@parametrize_norm
@parametrize_layout
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_opcheck(device, norm, layout, dtype):
    tensors = [tensor.requires_grad_() for tensor in arguments(norm=norm, dtype=dtype, layout=layout, device=device)]
    parameters = tensors[2:] or [None, None]
    window = (3, 3), (2, 2), (1, 1), (1, 1), False
    torch.library.opcheck(torch.ops.mmpool_ext.gated_lip_pool2d, (*tensors[:2], *parameters, 1e-5, 12.0, *window))


@tracing
@parametrize_norm
@pytest.mark.parametrize('dynamic', [False, True])
def test_compiles_in_one_graph(norm, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(lambda *tensors: gated_lip_pool2d(*tensors), fullgraph=True, dynamic=dynamic, backend='aot_eager')
    for shape in ((2, 5, 9, 12), (1, 5, 8, 7)):
        tensors = [tensor.requires_grad_() for tensor in arguments(shape, norm)]
        output, expected = compiled(*tensors), gated_lip_pool2d(*tensors)
        assert_close(output, expected)
        grad_output = gradient_like(shape, WINDOW, torch.float64)
        assert_close(torch.autograd.grad(output, tensors, grad_output), torch.autograd.grad(expected, tensors, grad_output))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(gate_scale=0.0), 'gate_scale must be above 0 and at most 32, but got 0.0'),
        (dict(gate_scale=33.0), 'gate_scale must be above 0 and at most 32, but got 33.0'),
        (dict(bias=None), 'weight and bias must both be given or both be None'),
        (dict(weight=torch.ones(4)), r'weight must have the shape \(5,\) on cpu, but got \(4,\)'),
        (dict(response=torch.zeros(2, 5, 9, 11)), 'response must have the shape of input'),
    ],
)
def test_bad_arguments(change, message):
    names = ('input', 'response', 'weight', 'bias')
    with pytest.raises(ValueError, match=f'gated_lip_pool2d: {message}'):
        gated_lip_pool2d(**dict(zip(names, arguments(dtype=torch.float32), strict=True), **change))


def test_a_single_pixel_cannot_be_normalized():
    with pytest.raises(ValueError, match=r'gated_lip_pool2d: response must have more than one pixel to normalize over, but got \(2, 5, 1, 1\)'):
        gated_lip_pool2d(*arguments((2, 5, 1, 1)))
