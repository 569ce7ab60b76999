"""The compiled ops as PyTorch sees them, and what happens where there are none."""

import importlib.util
import os
import subprocess
import sys
import types

import pytest
import torch
from pooling_cases import DEVICES, LAYOUTS, OPS, run
from releases import needs_torch
from torch.testing import assert_close

from mmpool_ext.ops import _extension

parametrize_op = pytest.mark.parametrize('op', OPS.values(), ids=OPS)
parametrize_device = pytest.mark.parametrize('device', DEVICES)
native = pytest.mark.skipif(not _extension.LOADED, reason=f'compiled ops are not built: {_extension.BUILD}')
# torch.compile, torch.export and opcheck read what torch has had since 2.4; 2.1's tracer does not even know zip(strict=True).
tracing = needs_torch(2, 4)
WINDOW = {'kernel_size': (3, 2), 'stride': (2, 1), 'padding': (1, 1)}


def arguments(op, shape=(2, 3, 7, 9), seed=0):
    return op.arguments(shape, WINDOW, torch.Generator().manual_seed(seed))


@tracing
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


@tracing
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


@tracing
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


def test_runtime_switch_does_without(monkeypatch):
    """In another process, as a user sets it."""
    code = 'from mmpool_ext.ops import _extension; print(_extension.LOADED, _extension.BROKEN, _extension.KERNELS)'
    environment = dict(os.environ, MMPOOL_EXT_WITH_OPS='0')
    assert subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True).stdout == 'False  set()\n'


@pytest.fixture
def fake_library(monkeypatch, tmp_path):
    """Write a library that says what it was built for, and make it the one that is found."""

    def write(text):
        library = tmp_path / '_C.so'
        library.write_bytes(b'\x7fELF ' + text.encode() + b'\0')
        monkeypatch.setattr(importlib.util, 'find_spec', lambda name: types.SimpleNamespace(origin=str(library)))
        return library

    return write


@pytest.mark.parametrize('built', [torch.__version__.split('+')[0], '1.0.0'])
def test_extension_that_does_not_load_names_both_versions(built, monkeypatch, fake_library):
    fake_library(f'mmpool_ext was built for torch {built}')

    def refuse(name):
        raise ImportError('undefined symbol: _ZN3c10')

    monkeypatch.setattr(_extension.importlib, 'import_module', refuse)
    with pytest.raises(ImportError, match=rf'was built for torch {built} and this is torch {torch.__version__}'.replace('+', r'\+')):
        _extension.load()


@pytest.mark.parametrize(('here', 'loads'), [('2.11.0a0+git', True), ('2.11.3', True), ('2.1.0', False), ('2.12.0', False), ('3.11.0', False)])
def test_binary_fits_every_build_of_its_minor_release(here, loads, monkeypatch, fake_library):
    """And is not even loaded into another, where it could crash."""
    fake_library('mmpool_ext was built for torch 2.11.1')
    loaded = []
    monkeypatch.setattr(_extension.importlib, 'import_module', loaded.append)
    monkeypatch.setattr(torch, '__version__', here)
    if loads:
        assert _extension.load()
    else:
        with pytest.raises(ImportError, match=r'built for torch 2.11.1 .*another version.*; build again with .*MMPOOL_EXT_WITH_OPS=0'):
            _extension.load()
    assert loaded == ['mmpool_ext._C'] * loads


def test_library_without_a_version_is_not_loaded(fake_library):
    fake_library('something else')
    with pytest.raises(ImportError, match='was built for torch unknown'):
        _extension.load()


@parametrize_op
def test_broken_extension_raises_where_it_is_needed(op, monkeypatch):
    """Not at import, so that ``python -m mmpool_ext`` can tell; and never in silence."""
    monkeypatch.setattr(_extension, 'BROKEN', 'mmpool_ext: the reason')
    input, weight, _ = arguments(op)
    for backend in ('auto', 'native'):
        with pytest.raises(RuntimeError, match='mmpool_ext: the reason'):
            op.public(input, weight, backend=backend, **WINDOW)
    assert op.public(input, weight, backend='torch', **WINDOW).isfinite().all()


def test_torch_that_is_too_old_stops_the_import_with_one_line():
    code = 'import torch; torch.__version__ = "2.0.1+cu118"; import mmpool_ext'
    error = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stderr
    assert error.endswith('ImportError: mmpool_ext: torch must be 2.1 or newer, but got 2.0.1+cu118; install a newer torch\n')


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
@pytest.mark.parametrize('dynamo', [pytest.param(True, marks=needs_torch(2, 5)), False])
def test_onnx_export_runs(op, dynamo, tmp_path):
    for module in ('onnx', 'onnxruntime', *(['onnxscript'] if dynamo else [])):
        pytest.importorskip(module)
    import onnxruntime

    class Module(torch.nn.Module):
        def forward(self, input, weight):
            return op.public(input, weight, **WINDOW)

    tensors = [tensor.float() for tensor in arguments(op)[:2]]
    path = str(tmp_path / 'pool.onnx')
    choice = {} if _extension.torch_release(torch.__version__) < (2, 5) else {'dynamo': dynamo}
    torch.onnx.export(Module(), tuple(tensors), path, **choice, input_names=['input', 'weight'])
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (got,) = session.run(None, dict(zip(('input', 'weight'), (tensor.numpy() for tensor in tensors), strict=True)))
    assert_close(torch.from_numpy(got), op.public(*tensors, **WINDOW), atol=1e-4, rtol=1e-4)
