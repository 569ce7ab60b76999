"""The CUDA kernels against the float64 oracle: on a GPU where there is one, and always as host code, which their bodies are too."""

import subprocess

import gated_cases
import pytest
import torch
from emulated import COMPILE, TYPES, need_compiler
from hypothesis import given, settings
from hypothesis import strategies as st
from pooling_cases import OPS, run, windows
from torch.testing import assert_close

from mmpool_ext.ops import _extension

PAIRS = [*zip(TYPES, TYPES, strict=True), (torch.float16, torch.float32), (torch.bfloat16, torch.float32)]
FIXED = {
    'k3s2p1': {'kernel_size': (3, 3), 'stride': (2, 2), 'padding': (1, 1)},
    'k2s2p0': {'kernel_size': (2, 2), 'stride': (2, 2), 'padding': (0, 0)},
}
parametrize_op = pytest.mark.parametrize('op', OPS)
parametrize_window = pytest.mark.parametrize('window', FIXED.values(), ids=FIXED)
parametrize_layout = pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=['contiguous', 'channels_last'])


def on_gpu_as_here(tensor):
    """Copy to the GPU, as far off a 16-byte border as the tensor is here."""
    off = tensor.data_ptr() % 16 // tensor.itemsize
    return torch.empty(off + tensor.numel(), dtype=tensor.dtype, device='cuda')[off:].as_strided(tensor.shape, tensor.stride()).copy_(tensor)


class OnGPU:
    """The compiled op; its exp2 and log2 are the GPU's own."""

    def __call__(self, op, input, weight, grad_output, window, layout):
        """Return output and gradients of input and weight; a tensor that starts off a border does so on the GPU too."""
        tensors = (on_gpu_as_here(tensor.contiguous(memory_format=layout)) for tensor in (input, weight, grad_output))
        return [result.cpu() for result in run(OPS[op], *tensors, backend='native', **window)]

    def gated(self, grad_output, input, response, weight, bias, window, layout):
        """Return output and gradients of the gated LIP."""
        maps = [tensor.cuda().contiguous(memory_format=layout) for tensor in (input, response)]
        tensors = [*maps, *(tensor.cuda() for tensor in (weight, bias) if tensor is not None)]
        return [result.cpu() for result in gated_cases.run_gated(grad_output.cuda(), *tensors, backend='native', **window)]


def need_gpu():
    if not torch.cuda.is_available():
        pytest.skip('no GPU')
    if ('lip_pool2d', 'cuda') not in _extension.KERNELS:
        pytest.skip(f'compiled ops are not built for CUDA: {_extension.BUILD}')


@pytest.fixture(scope='session', params=['emulated', 'gpu'])
def kernels(request):
    if request.param == 'emulated':
        return request.getfixturevalue('emulated')
    need_gpu()
    return OnGPU()


def check(kernels, op, input, weight, grad_output, window, layout):
    """Compare with the oracle on the same rounded values: one rounding to the dtype, and some of float32 at the size of the terms."""
    results = kernels(op, input, weight, grad_output, window, layout)
    expected = OPS[op].oracle(input, weight, grad_output, **window)
    size, grad = (tensor.abs().max().item() for tensor in (input, grad_output))
    # In P-pooling the exponent multiplies the rounding of the ratios; an importance has a gradient in units of its inverse.
    power = 1 + weight.max().item() if op == 'polynomial' else 1
    terms = size * power, grad * power**2, grad * size * (weight[weight > 0].min().item() ** -1 if op == 'lan' else power)
    for got, want, term in zip(results, expected, terms, strict=True):
        wide = torch.finfo(torch.float64 if got.dtype == torch.float64 else torch.float32).eps
        want = want.to(got.dtype).double()  # a float16 may overflow
        assert_close(got.double(), want, rtol=max(torch.finfo(got.dtype).eps, 32 * wide), atol=4 * wide * term)


def arguments(op, shape, window, pair, seed=0):
    input, weight, grad_output = OPS[op].arguments(shape, window, torch.Generator().manual_seed(seed))
    if op == 'lan':
        weight = weight * (weight > 0.1)
        weight[0, 0, 0, 0] = 1
    if op == 'polynomial':  # between 0 and 1 the slope at a zero pixel, up to 1e6, would set the tolerance; test_extreme_values has such
        weight = weight + (weight < 1)
    return input.to(pair[0]), weight.to(pair[1]), grad_output.to(pair[0])


def name(pair):
    return '-'.join(str(dtype).removeprefix('torch.') for dtype in dict.fromkeys(pair))


@pytest.mark.parametrize('pair', PAIRS, ids=name)
@parametrize_window
@parametrize_layout
@parametrize_op
def test_fixed_windows(kernels, op, layout, window, pair):
    check(kernels, op, *arguments(op, (2, 8, 10, 12), window, pair), window, layout)
    if isinstance(kernels, OnGPU):
        return
    forward, backward = kernels.ways
    if pair[0] == torch.float64:
        assert (forward['lanes'], backward['launches']) == (1, 2)
        return
    overlap = window['kernel_size'][0] == 3
    lanes = 16 // pair[1].itemsize if layout == torch.channels_last else 4
    assert forward == {'lanes': lanes, 'phases': 1, 'launches': 1}
    assert backward == {'lanes': 4 if overlap else lanes, 'phases': 1 + overlap, 'launches': 1}


@pytest.mark.parametrize('ceil_mode', [False, True])
@parametrize_window
@parametrize_layout
@parametrize_op
def test_fixed_windows_of_every_size(kernels, op, layout, window, ceil_mode):
    window = {**window, 'ceil_mode': ceil_mode}
    for height, width in [(2, 3), (3, 2), (5, 7), (6, 5), (7, 14), (9, 8), (4, 17), (37, 3), (3, 70)]:
        check(kernels, op, *arguments(op, (1, 4, height, width), window, (torch.float32,) * 2), window, layout)


@parametrize_layout
@parametrize_op
def test_many_blocks(kernels, op, layout):
    """More than a block along every axis, and tiles that do not divide the sizes."""
    shape = (2, 72, 38, 19) if layout == torch.channels_last else (2, 5, 70, 300)
    for window in FIXED.values():
        tensors = arguments(op, shape, window, (torch.float32,) * 2)
        expected = run(OPS[op], *(tensor.double() for tensor in tensors), backend='torch', **window)
        for got, want in zip(kernels(op, *tensors, window, layout), expected, strict=True):
            # the exponent, up to 50, multiplies P-pooling's gradients, and once more the rounding of its ratios
            assert_close(got.double(), want, rtol=1e-5, atol=1e-3 if op == 'polynomial' else 1e-5)


@parametrize_op
@given(
    data=st.data(), pair=st.sampled_from(PAIRS), layout=st.sampled_from([torch.contiguous_format, torch.channels_last]), seed=st.integers(0, 2**16)
)
@settings(max_examples=60)
def test_any_window(kernels, op, data, pair, layout, seed):
    shape, window = data.draw(windows(dilated=op != 'polynomial'))
    check(kernels, op, *arguments(op, shape, window, pair, seed), window, layout)


# Each channel is judged at its own size.
EXTREMES = {
    'lip': [0.0, 1e4, -1e4, 12.0, float('-inf')],
    'lan': [0.0, 0.0, 0.5, 1.0, 3.0],
    'polynomial': [0.0, 0.3, 1.0, 1 + 2**-7, 35.0, 50.0],
}


@parametrize_window
@parametrize_layout
@parametrize_op
def test_extreme_values(kernels, op, layout, window):
    generator = torch.Generator().manual_seed(1)
    input, weight, grad_output = arguments(op, (1, 8, 16, 24), window, (torch.float32,) * 2)
    choices = torch.tensor(EXTREMES[op])
    weight = choices[torch.randint(len(choices), weight.shape, generator=generator)]
    weight[0, 0] = choices[-1]
    input[0, 1] *= 1e-40
    input[0, 2] *= 5e37 if op == 'polynomial' else 1e30  # near float32's largest, 3.4e38
    if op == 'polynomial':
        input[0, 3] -= 0.5
    if op == 'lan':
        weight[0, 3] *= 1e-36
        weight[0, 4] *= 1e30
    results = kernels(op, input, weight, grad_output, window, layout)
    for channel in range(8):
        one = slice(channel, channel + 1)
        for got, want in zip(results, OPS[op].oracle(input[:, one], weight[:, one], grad_output[:, one], **window), strict=True):
            size = max(want.abs().max().item(), 1e-38)
            assert_close(got[:, one].double() / size, want / size, rtol=1e-4, atol=2e-5)


@parametrize_layout
@pytest.mark.parametrize(('alpha', 'grad'), [(1e6, 0.3), (1e7, 10.0), (50.0, 1e37)])
def test_gradient_of_the_largest_pixels_is_exact_for_any_alpha(kernels, layout, alpha, grad):
    """``1 + alpha`` and ``alpha`` cancel, before they are multiplied by anything."""
    input = torch.tensor([[1.0, 0, 3, 3, 0, 0], [0, 0, 1, 0, 0, 0]]).expand(1, 4, 2, 6)
    shares = torch.tensor([[1.0, 0, 0.5, 0.5, 0.25, 0.25], [0, 0, 0, 0, 0.25, 0.25]])
    weight, grad_output = (torch.full((1, 4, 1, 3), value) for value in (alpha, grad))
    _, grad_input, _ = kernels('polynomial', input, weight, grad_output, FIXED['k2s2p0'], layout)
    assert_close(grad_input / grad, shares.expand(1, 4, 2, 6))


@parametrize_window
@parametrize_layout
@parametrize_op
def test_nan_stays_where_it_is(kernels, op, layout, window):
    for which, alone in ((0, False), (1, False), (1, True)):
        tensors = arguments(op, (1, 4, 8, 8), window, (torch.float32,) * 2)
        if alone:  # beside weights that count for nothing
            tensors[1][0, 1] = float('-inf') if op == 'lip' else 0
        tensors[which][0, 1, 0, 0] = float('nan')
        output, grad_input, grad_weight = kernels(op, *tensors, window, layout)
        assert output.isnan().nonzero().tolist() == [[0, 1, 0, 0]]
        assert grad_input.isnan()[0, 1].any() or grad_weight.isnan()[0, 1].any()
        assert not grad_input[:, [0, 2, 3]].isnan().any()
        assert not grad_weight[:, [0, 2, 3]].isnan().any()


@parametrize_layout
@parametrize_op
def test_pixels_beyond_the_last_window_count_for_nothing(kernels, op, layout):
    input, weight, grad_output = arguments(op, (1, 4, 5, 7), FIXED['k2s2p0'], (torch.float32,) * 2)
    input[:, :, 4], input[..., 6] = float('nan'), float('inf')
    output, grad_input, grad_weight = kernels(op, input, weight, grad_output, FIXED['k2s2p0'], layout)
    assert all(result.isfinite().all() for result in (output, grad_input, grad_weight))
    assert not grad_input[:, :, 4].any()
    assert not grad_input[..., 6].any()


@pytest.mark.parametrize(
    ('layout', 'shape', 'lanes'),
    [(torch.contiguous_format, (1, 1, 8, 8), 4), (torch.channels_last, (1, 8, 6, 6), 1), (torch.channels_last, (1, 3, 6, 6), 1)],
)
def test_unaligned_and_incomplete_runs(kernels, layout, shape, lanes):
    """A slice that starts off a 16-byte border, and channels that do not fill a run."""
    window = FIXED['k3s2p1']
    input, weight, grad_output = arguments('lip', shape, window, (torch.float32,) * 2)
    input = input.contiguous(memory_format=layout)
    off = torch.empty(input.numel() + 1)[1:].as_strided(input.shape, input.stride()).copy_(input)
    check(kernels, 'lip', off, weight, grad_output, window, layout)
    assert isinstance(kernels, OnGPU) or kernels.ways[0]['lanes'] == lanes


@pytest.mark.parametrize('pair', PAIRS, ids=name)
@pytest.mark.parametrize('norm', [True, False], ids=['norm', 'no norm'])
@parametrize_layout
@pytest.mark.parametrize(
    ('shape', 'window'),
    [
        ((2, 16, 10, 12), FIXED['k3s2p1']),
        ((2, 16, 10, 12), FIXED['k2s2p0']),
        ((1, 40, 37, 23), FIXED['k3s2p1']),
        ((2, 3, 9, 14), {'kernel_size': (3, 2), 'stride': (2, 1), 'padding': (1, 1), 'dilation': (2, 1), 'ceil_mode': True}),
    ],
    ids=['k3s2p1', 'k2s2p0', 'many blocks', 'any window'],
)
def test_gated_lip(kernels, shape, window, layout, norm, pair):
    tensors = gated_cases.arguments(shape, norm, pair[0])
    tensors[1] = tensors[1].to(pair[1])
    grad_output = gated_cases.gradient_like(shape, window, pair[0])
    exact = gated_cases.oracle(grad_output, *tensors, **window)
    weight, bias = tensors[2:] or (None, None)
    for got, want in zip(kernels.gated(grad_output, *tensors[:2], weight, bias, window, layout), exact, strict=True):
        wide = torch.finfo(torch.promote_types(got.dtype, torch.float32)).eps
        # a logit of 12 multiplies the rounding of its sigmoid
        assert_close(got.double(), want, rtol=torch.finfo(got.dtype).eps, atol=64 * wide * max(1, want.abs().max().item()))


@pytest.mark.parametrize('pair', PAIRS, ids=name)
@parametrize_layout
@pytest.mark.parametrize('shape', [(2, 16, 10, 12), (1, 3, 7, 5), (1, 72, 60, 70), (3, 40, 1, 9)], ids=str)
def test_norm(kernels, shape, layout, pair):
    if isinstance(kernels, OnGPU):
        pytest.skip('test_instance_norm.py has it')
    input, weight, bias, grad = gated_cases.norm_arguments(shape, pair[0])
    coefficients, output = kernels.norm(input, weight, bias, layout)
    wide = torch.finfo(coefficients.dtype).eps
    doubles = [tensor.double() for tensor in (input, weight, bias, grad)]
    expected = gated_cases.run_norm(*doubles, 'torch')
    results = output, *kernels.norm_backward(grad.to(pair[1]), input, coefficients, True, layout)
    for got, want in zip(results, expected, strict=True):
        assert_close(got.double(), want, rtol=torch.finfo(got.dtype).eps, atol=64 * wide * max(1, want.abs().max().item()))


@parametrize_op
def test_two_runs_are_bit_equal(kernels, op):
    for window in FIXED.values():
        tensors = arguments(op, (2, 4, 65, 53), window, (torch.float32,) * 2)
        for first, second in zip(*(kernels(op, *tensors, window, torch.contiguous_format) for _ in range(2)), strict=True):
            assert torch.equal(first, second)


def test_bodies_are_clean_under_the_sanitizers(tmp_path):
    """Hundreds of random shapes in buffers of exactly their size: nothing outside is touched, nothing overflows, vectors are aligned."""
    need_compiler()
    program = tmp_path / 'self_test'
    sanitize = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-DSELF_TEST']
    subprocess.run([*COMPILE, *sanitize, '-o', program], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '500 shapes\n'


@pytest.fixture
def on_gpu():
    need_gpu()


@pytest.mark.usefixtures('on_gpu')
@parametrize_op
def test_current_stream_is_used(op):
    """The input is written late on a side stream: a kernel on another stream would read it too early."""
    tensors = [tensor.cuda() for tensor in arguments(op, (2, 8, 64, 64), FIXED['k3s2p1'], (torch.float32,) * 2)]
    expected = run(OPS[op], *tensors, backend='native', **FIXED['k3s2p1'])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(tensors[0])
        torch.cuda._sleep(50_000_000)
        late.copy_(tensors[0])
        results = run(OPS[op], late, *tensors[1:], backend='native', **FIXED['k3s2p1'])
    stream.synchronize()
    for got, want in zip(results, expected, strict=True):
        assert torch.equal(got, want)


@pytest.mark.usefixtures('on_gpu')
@parametrize_op
@pytest.mark.parametrize('kernel', [2, 3])
def test_graph_capture_without_a_synchronization(op, kernel):
    window = {'kernel_size': (kernel,) * 2, 'stride': (2, 2), 'padding': (kernel - 2,) * 2}
    input, weight, _ = (tensor.cuda() for tensor in arguments(op, (2, 8, 32, 32), window, (torch.float32,) * 2))
    expected = OPS[op].public(input, weight, backend='native', **window)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = OPS[op].public(input, weight, backend='native', **window)
    output.zero_()
    graph.replay()
    assert torch.equal(output, expected)


@pytest.mark.usefixtures('on_gpu')
@parametrize_op
def test_second_device(op):
    if torch.cuda.device_count() < 2:
        pytest.skip('one GPU')
    tensors = arguments(op, (1, 4, 9, 12), FIXED['k3s2p1'], (torch.float32,) * 2)
    first, second = (run(OPS[op], *(t.to(device) for t in tensors), backend='native', **FIXED['k3s2p1']) for device in ('cuda:0', 'cuda:1'))
    for want, got in zip(first, second, strict=True):
        assert got.device.index == 1
        assert torch.equal(got.cpu(), want.cpu())


@pytest.mark.usefixtures('on_gpu')
@parametrize_layout
@pytest.mark.parametrize('shape', [(2, 64, 4096, 4608), (1, 1, 49152, 49152)], ids=['many', 'large'])
def test_more_than_2_to_the_31_elements(layout, shape):
    """The last image or the last corner, where a 32-bit index would have wrapped round."""
    if torch.cuda.get_device_properties(0).total_memory < 2**35:
        pytest.skip('less than 32 GiB on the GPU')
    input = torch.empty(shape, dtype=torch.float16, device='cuda', memory_format=layout).normal_()
    output = OPS['lip'].public(input, input, backend='native')
    corner = input[-1:, -1:, -64:, -64:].contiguous()
    assert_close(output[-1:, -1:, -31:, -31:], OPS['lip'].public(corner, corner, backend='torch')[..., 1:, 1:])
