"""Shapes, layouts and argument checks: the same for every pooling op."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pooling_cases import DEVICES, LAYOUTS, OPS, run, windows

import mmpool_ext.ops.window as window_module
from mmpool_ext.ops import lip_pool2d, polynomial_pool2d

parametrize_op = pytest.mark.parametrize('op', OPS.values(), ids=OPS)


@given(windows())
def test_output_size_is_that_of_max_pool2d(drawn):
    shape, keywords = drawn
    input = torch.rand(shape)
    assert lip_pool2d(input, input, **keywords).shape == F.max_pool2d(input, **keywords).shape


@parametrize_op
@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)), seed=st.integers(0, 2**16))
@settings(max_examples=40)
def test_output_and_gradients_are_the_oracle_s(op, data, layout, seed):
    shape, keywords = data.draw(windows(dilated=op.name != 'polynomial_pool2d'))
    input, weight, grad_output = op.arguments(shape, keywords, torch.Generator().manual_seed(seed))
    input, weight, grad_output = (LAYOUTS[layout](tensor) for tensor in (input, weight, grad_output))
    for got, expected in zip(run(op, input, weight, grad_output, **keywords), op.oracle(input, weight, grad_output, **keywords), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@parametrize_op
@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('shape', [(0, 3, 6, 6), (2, 0, 6, 6)])
def test_empty_batch_and_channels(op, device, shape):
    input, per_window = torch.rand(shape, device=device), torch.rand(*shape[:2], 3, 3, device=device)
    weight = per_window.clone() if op.weight_per_window else input.clone()
    output, grad_input, grad_weight = run(op, input, weight, per_window)
    assert output.shape == (*shape[:2], 3, 3)
    assert (grad_input.shape, grad_weight.shape) == (input.shape, weight.shape)


@parametrize_op
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('weight_dtype', ['same', 'float32'])
def test_halves_are_computed_in_float32(op, dtype, weight_dtype):
    keywords = {'kernel_size': (3, 3), 'stride': (2, 2), 'padding': (1, 1)}
    arguments = op.arguments((2, 3, 9, 12), keywords, torch.Generator().manual_seed(0))
    input, weight, grad_output = (tensor.to(dtype) for tensor in arguments)
    if weight_dtype == 'float32':
        weight = arguments[1].float()
    results = run(op, input, weight, grad_output, **keywords)
    assert [result.dtype for result in results] == [dtype, dtype, weight.dtype]
    for got, expected in zip(results, op.oracle(input, weight, grad_output, **keywords), strict=True):
        step = torch.finfo(got.dtype).eps  # one rounding, at the end
        torch.testing.assert_close(got.double(), expected, rtol=step, atol=8 * torch.finfo(torch.float32).eps * expected.abs().max().item())


@parametrize_op
def test_nan_pixel_makes_its_windows_nan_alone(op):
    keywords = {'kernel_size': (2, 2), 'stride': (2, 2), 'padding': (0, 0)}
    input, weight, _ = op.arguments((1, 1, 4, 4), keywords, torch.Generator().manual_seed(0))
    input[0, 0, 0, 0] = float('nan')
    assert op.public(input, weight + 1, **keywords).isnan().flatten().tolist() == [True, False, False, False]


@parametrize_op
@pytest.mark.parametrize(
    ('keywords', 'message'),
    [
        ({'kernel_size': 0}, r'kernel_size must be an int >= 1 or a pair of them, but got 0'),
        ({'kernel_size': 2.0}, r'kernel_size must be an int >= 1 or a pair of them, but got 2\.0'),
        ({'stride': (1, 0)}, r'stride must be an int >= 1 or a pair of them, but got \(1, 0\)'),
        ({'stride': (1, 1, 1)}, r'stride must be an int >= 1 or a pair of them, but got \(1, 1, 1\)'),
        ({'padding': -1}, r'padding must be an int >= 0 or a pair of them, but got -1'),
        ({'padding': (2, 1), 'kernel_size': 3}, r'padding must be at most half of the window.* got padding \(2, 1\), kernel_size 3 and dilation 1'),
        ({'kernel_size': (2, 9), 'padding': 0}, r'kernel_size must fit into the padded input, but got kernel_size \(2, 9\).*\(2, 3, 6, 8\)'),
    ],
)
def test_window_checks(op, keywords, message):
    input = torch.rand(2, 3, 6, 8)
    with pytest.raises(ValueError, match=f'{op.name}: {message}'):
        op.public(input, input, **keywords)


def test_dilation_check():
    input = torch.rand(1, 1, 6, 8)
    with pytest.raises(ValueError, match=r'lip_pool2d: dilation must be an int >= 1 or a pair of them, but got 0'):
        lip_pool2d(input, input, dilation=0)
    tall = torch.rand(1, 1, 2, 8)
    assert lip_pool2d(tall, tall, stride=1, dilation=3, padding=3).shape == tall.shape  # a dilated 3x3 has its centre inside the image
    input = torch.rand(1, 1, 2, 8)
    with pytest.raises(ValueError, match=r'lip_pool2d: every window must hold an input pixel, but got dilation 3 with padding 1'):
        lip_pool2d(input, input, kernel_size=2, dilation=3, padding=1)


@parametrize_op
def test_tensor_checks(op):
    input = torch.rand(2, 3, 6, 8)
    weight = torch.rand(2, 3, 3, 4) if op.weight_per_window else input
    for wrong in (input.int(), [1.0]):
        with pytest.raises(TypeError, match=f'{op.name}: input must be a float64, float32, float16 or bfloat16 tensor, but got'):
            op.public(wrong, weight)
    for wrong in (input[0], input[..., :0]):
        with pytest.raises(ValueError, match=rf'{op.name}: input must be \(N, C, H, W\) with H and W >= 1, but got'):
            op.public(wrong, weight)
    for wrong in (weight.double(), weight.half(), weight.int()):
        with pytest.raises(TypeError, match=f'{op.name}: .* must have the dtype of input, or float32 with a float16 or bfloat16 input, but got'):
            op.public(input, wrong)
    for wrong in (1.0, weight.to('meta')):
        with pytest.raises(ValueError, match=f'{op.name}: .* must be a tensor on the device of input, but got'):
            op.public(input, wrong)


@pytest.mark.parametrize('name', ['lip', 'lan'])
def test_weight_of_another_shape(name):
    op = OPS[name]
    with pytest.raises(ValueError, match=rf'{op.name}: .* must have the shape of input, but got \w+ \(2, 1, 6, 8\) and input \(2, 3, 6, 8\)'):
        op.public(torch.rand(2, 3, 6, 8), torch.rand(2, 1, 6, 8))


def test_alpha_of_another_shape():
    for wrong in (torch.rand(2, 3, 3, 3), torch.rand(1, 2, 3, 3, 4)):
        with pytest.raises(ValueError, match=r'polynomial_pool2d: alpha must broadcast to the output, but got alpha .* and output \(2, 3, 3, 4\)'):
            polynomial_pool2d(torch.rand(2, 3, 6, 8), wrong)


def test_valid_marks_the_padding():
    window = window_module.Window.checked('lip_pool2d', torch.rand(1, 1, 2, 2), 3, 2, 1, 1, False)
    assert window.valid(torch.rand(1, 1, 2, 2)).flatten().tolist() == [False] * 4 + [True] * 2 + [False] + [True] * 2
