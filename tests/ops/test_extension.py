"""The compiled ops as PyTorch sees them, and what happens where there are none."""

import importlib.util
import types

import pytest
import torch
from pooling_cases import DEVICES, LAYOUTS, OPS, run
from torch.testing import assert_close

from mmpool_ext.ops import _extension

parametrize_op = pytest.mark.parametrize('op', OPS.values(), ids=OPS)
parametrize_device = pytest.mark.parametrize('device', DEVICES)
native = pytest.mark.skipif(not _extension.LOADED, reason=f'compiled ops are not built: {_extension.BUILD}')
WINDOW = {'kernel_size': (3, 2), 'stride': (2, 1), 'padding': (1, 1)}


def arguments(op, shape=(2, 3, 7, 9), seed=0):
    return op.arguments(shape, WINDOW, torch.Generator().manual_seed(seed))


@native
@parametrize_op
@parametrize_device
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_opcheck(op, device, layout, dtype):
    input, weight, _ = (LAYOUTS[layout](tensor.to(device, dtype)) for tensor in arguments(op))
    window = WINDOW['kernel_size'], WINDOW['stride'], WINDOW['padding'], (1, 1), False
    torch.library.opcheck(getattr(torch.ops.mmpool_ext, op.name), (input.requires_grad_(), weight.requires_grad_(), *window))


@native
@parametrize_op
@parametrize_device
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_native_and_torch_give_the_same(op, device, dtype):
    tensors = [tensor.to(device, dtype) for tensor in arguments(op, (2, 5, 17, 20))]
    for got, expected in zip(run(op, *tensors, backend='native', **WINDOW), run(op, *tensors, backend='torch', **WINDOW), strict=True):
        assert_close(got, expected)


@native
@parametrize_op
@parametrize_device
def test_memory_format_of_input_is_kept(op, device):
    input, weight, grad_output = (tensor.to(device) for tensor in arguments(op))
    for layout in (torch.contiguous_format, torch.channels_last):
        results = run(op, input.contiguous(memory_format=layout), weight, grad_output, **WINDOW)
        assert all(result.is_contiguous(memory_format=layout) for result in results)


@native
@parametrize_op
@parametrize_device
def test_two_runs_are_bit_equal(op, device):
    tensors = [tensor.to(device, torch.float32) for tensor in arguments(op, (3, 4, 33, 31))]
    for first, second in zip(run(op, *tensors, **WINDOW), run(op, *tensors, **WINDOW), strict=True):
        assert torch.equal(first, second)


@parametrize_op
@parametrize_device
@pytest.mark.parametrize('dynamic', [False, True])
def test_compiles_in_one_graph(op, device, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(lambda input, weight: op.public(input, weight, **WINDOW), fullgraph=True, dynamic=dynamic, backend='aot_eager')
    for size in ((2, 3, 7, 9), (1, 2, 8, 12)):
        input, weight, grad_output = (tensor.to(device) for tensor in arguments(op, size))
        tensors = input.requires_grad_(), weight.requires_grad_()
        output = compiled(*tensors)
        expected = op.public(*tensors, **WINDOW)
        assert_close(output, expected)
        assert_close(torch.autograd.grad(output, tensors, grad_output), torch.autograd.grad(expected, tensors, grad_output))


@parametrize_op
def test_exports(op):
    class Module(torch.nn.Module):
        def forward(self, input, weight):
            return op.public(input, weight, **WINDOW)

    input, weight, _ = arguments(op)
    assert_close(torch.export.export(Module(), (input, weight)).module()(input, weight), op.public(input, weight, **WINDOW))


@parametrize_op
def test_backend_is_checked(op):
    input, weight, _ = arguments(op)
    with pytest.raises(ValueError, match=rf"{op.name}: backend must be 'auto', 'native' or 'torch', but got 'cuda'"):
        op.public(input, weight, backend='cuda', **WINDOW)


@parametrize_op
def test_native_that_is_not_built(op, monkeypatch):
    monkeypatch.setattr(_extension, 'KERNELS', set())
    input, weight, _ = arguments(op)
    with pytest.raises(RuntimeError, match=rf"{op.name}: backend='native' must find the op compiled for cpu, but it is not built: python setup.py"):
        op.public(input, weight, backend='native', **WINDOW)
    assert_close(op.public(input, weight, **WINDOW), op.public(input, weight, backend='torch', **WINDOW))


def test_no_extension_is_no_error(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert _extension.load() is False


@pytest.mark.parametrize('built', [torch.__version__.split('+')[0], '1.0.0'])
def test_extension_that_does_not_load_names_both_versions(built, monkeypatch, tmp_path):
    library = tmp_path / '_C.so'
    library.write_bytes(b'\x7fELF mmpool_ext was built for torch ' + built.encode() + b'\0')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: types.SimpleNamespace(origin=str(library)))

    def refuse(name):
        raise ImportError('undefined symbol: _ZN3c10')

    monkeypatch.setattr(_extension.importlib, 'import_module', refuse)
    with pytest.raises(ImportError, match=rf'was built for torch {built} and this is torch {torch.__version__}'.replace('+', r'\+')):
        _extension.load()


def test_auto_takes_the_plain_form_during_onnx_export(monkeypatch):
    monkeypatch.setattr(torch.onnx, 'is_in_onnx_export', lambda: True)
    assert not _extension.use_native('lip_pool2d', 'auto', torch.rand(1, 1, 2, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@native
@parametrize_op
def test_cuda_gives_what_the_cpu_gives(op):
    tensors = arguments(op, (2, 5, 17, 20))
    for got, expected in zip(run(op, *(t.cuda() for t in tensors), backend='native', **WINDOW), run(op, *tensors, **WINDOW), strict=True):
        assert_close(got.cpu(), expected)


@native
@parametrize_op
def test_derivatives_to_second_order_through_the_compiled_op(op):
    input, weight, _ = op.arguments((1, 2, 4, 5), WINDOW, torch.Generator().manual_seed(3))
    tensors = (input + 0.1).requires_grad_(), (weight.abs() + 0.5).requires_grad_()
    function = lambda input, weight: op.public(input, weight, backend='native', **WINDOW)  # noqa: E731
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


@parametrize_op
@pytest.mark.parametrize('dynamo', [True, False])
def test_onnx_export_runs(op, dynamo, tmp_path):
    for module in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(module)
    import onnxruntime

    class Module(torch.nn.Module):
        def forward(self, input, weight):
            return op.public(input, weight, **WINDOW)

    tensors = [tensor.float() for tensor in arguments(op)[:2]]
    path = str(tmp_path / 'pool.onnx')
    torch.onnx.export(Module(), tuple(tensors), path, dynamo=dynamo, input_names=['input', 'weight'])
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (got,) = session.run(None, dict(zip(('input', 'weight'), (tensor.numpy() for tensor in tensors), strict=True)))
    assert_close(torch.from_numpy(got), op.public(*tensors, **WINDOW), atol=1e-4, rtol=1e-4)
