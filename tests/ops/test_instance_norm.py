"""Instance normalization with its ReLU, against float64 and PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from gated_cases import norm_arguments, run_norm
from hypothesis import given, settings
from hypothesis import strategies as st
from pooling_cases import DEVICES, LAYOUTS
from releases import needs_torch
from torch.testing import assert_close

from mmpool_ext.ops import _extension, instance_norm_relu

native = pytest.mark.skipif(not _extension.LOADED, reason=f'compiled ops are not built: {_extension.BUILD}')
tracing = needs_torch(2, 4)
parametrize_device = pytest.mark.parametrize('device', DEVICES)
TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@native
@parametrize_device
@pytest.mark.parametrize('dtype', TYPES, ids=str)
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    seed=st.integers(0, 2**16),
    shape=st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 8, 24, 70]), st.integers(1, 40), st.integers(2, 30)),
)
@settings(max_examples=40)
def test_is_pytorchs(device, dtype, layout, seed, shape):
    """As exact as PyTorch's own: at most twice its error against float64, and some roundings where that is exact by chance."""
    tensors = norm_arguments(shape, dtype, layout, seed, device)
    exact = run_norm(*(tensor.double() for tensor in tensors), 'torch')
    for got, other, want in zip(run_norm(*tensors, 'native'), run_norm(*tensors, 'torch'), exact, strict=True):
        error, allowed = ((result.double() - want).abs().max() for result in (got, other))
        wide = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
        # the sums of a parameter's gradient cancel: their rounding is that of their terms
        terms = tensors[3].double().abs().sum() if want.dim() == 1 else want.abs().max()
        arithmetic = 1e-12 if dtype == torch.float64 else 32 * wide
        assert error <= 2 * allowed + torch.finfo(got.dtype).eps / 2 * want.abs().max() + arithmetic * terms.clamp(min=1)
        assert got.dtype == other.dtype


@native
@parametrize_device
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_large_maps_far_from_zero(device, layout):
    """Sums of squares would cancel: the mean is a thousand deviations away."""
    input = norm_arguments((2, 3, 300, 201), torch.float32, layout, device=device)[0] * 1e-2 + 20
    ones, zeros = torch.ones(3, device=device), torch.zeros(3, device=device)
    expected = F.relu(F.instance_norm(input.double(), eps=1e-12))
    assert_close(instance_norm_relu(input, ones, zeros, 1e-12, backend='native').double(), expected, rtol=0, atol=2e-3)


@native
@parametrize_device
def test_nan_stays_in_its_channel_and_constant_maps_are_the_bias(device):
    for layout in ('contiguous', 'channels_last'):
        input, weight, bias, grad_output = norm_arguments((2, 8, 6, 7), torch.float32, layout, device=device)
        input[0, 2, 1, 1] = float('nan')
        input[1, 4] = 7.25
        output, grad_input, *_ = run_norm(input, weight, bias, grad_output, 'native')
        assert output[0, 2].isnan().all()
        assert grad_input[0, 2].isnan().all()
        assert_close(output[1, 4], bias[4].clamp(min=0).expand(6, 7))
        for result in (output, grad_input):
            result[0, 2] = 0
            assert result.isfinite().all()


@native
@parametrize_device
def test_format_is_kept_and_runs_are_bit_equal(device):
    for layout, memory_format in (('contiguous', torch.contiguous_format), ('channels_last', torch.channels_last)):
        tensors = norm_arguments((3, 16, 65, 53), torch.bfloat16, layout, device=device)
        first, second = run_norm(*tensors, 'native'), run_norm(*tensors, 'native')
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
        assert all(result.is_contiguous(memory_format=memory_format) for result in first[:2])


@pytest.mark.parametrize('backend', ['torch', pytest.param('native', marks=native)])
def test_derivatives_and_empty_batch(backend):
    tensors = [tensor.requires_grad_() for tensor in norm_arguments((2, 2, 4, 3), torch.float64)[:3]]
    function = lambda *tensors: instance_norm_relu(*tensors, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)
    results = run_norm(*norm_arguments((0, 2, 4, 3), torch.float32), backend)
    assert results[0].shape == (0, 2, 4, 3)
    assert not any(result.any() for result in results)


@native
def test_what_is_kept_for_backward():
    kept = []
    input, weight, bias, _ = (tensor.requires_grad_() for tensor in norm_arguments((2, 3, 5, 6), torch.float32))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tuple(tensor.shape)) or tensor, lambda tensor: tensor):
        instance_norm_relu(input, weight, bias)
    assert kept == [(2, 3, 5, 6), (3,), (3,), (4, 2, 3)]


@tracing
@native
@parametrize_device
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_opcheck(device, layout):
    tensors = [tensor.requires_grad_() for tensor in norm_arguments((2, 3, 5, 6), torch.float32, layout, device=device)[:3]]
    torch.library.opcheck(torch.ops.mmpool_ext.instance_norm_relu, (*tensors, 1e-5))


def test_bad_arguments():
    input, weight, bias, _ = norm_arguments((2, 3, 5, 6), torch.float32)
    with pytest.raises(ValueError, match=r'instance_norm_relu: bias must have the shape \(3,\) on cpu, but got \(2,\)'):
        instance_norm_relu(input, weight, bias[:2])
    with pytest.raises(ValueError, match=r'instance_norm_relu: input must be \(N, C, H, W\), but got \(3, 5, 6\)'):
        instance_norm_relu(input[0], weight, bias)
    with pytest.raises(ValueError, match=r'instance_norm_relu: input must have more than one pixel to normalize over, but got \(2, 3, 1, 1\)'):
        instance_norm_relu(input[..., :1, :1], weight, bias)
    with pytest.raises(TypeError, match=r'instance_norm_relu: input must be a float64, .* but got torch.int64'):
        instance_norm_relu(input.long(), weight, bias)
