"""The compiled ops: the only importer of ``mmpool_ext._C``, which registers them as ``torch.ops.mmpool_ext``."""

import importlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from .window import Window

BUILD = 'python setup.py build_ext --inplace (or pip install --no-build-isolation .)'


def load(name: str = 'mmpool_ext._C') -> bool:
    """Load the extension.

    Returns:
        Whether there is one.

    Raises:
        ImportError: If it is there and does not load, or was built for another torch: its kernels would crash rather than fail.
    """
    spec = importlib.util.find_spec(name)
    if spec is None:
        return False
    found = re.search(rb'mmpool_ext was built for torch ([\w.]+)', Path(spec.origin).read_bytes())
    built, here = found.group(1).decode() if found else 'unknown', torch.__version__.split('+')[0]
    problem = '' if built == here else 'another version'
    if not problem:
        try:
            importlib.import_module(name)
        except ImportError as error:
            problem = str(error)
    if problem:
        raise ImportError(
            f'mmpool_ext: the compiled ops must be built for the torch that runs, but {spec.origin} was built for torch {built} and this is torch '
            f'{torch.__version__} ({problem}): build again with {BUILD}'
        )
    return True


LOADED = load()
KERNELS: set[tuple[str, str]] = set()  # (op, device type)


def use_native(op: str, backend: str, input: Tensor) -> bool:
    """Decide between the compiled op and the plain-PyTorch form.

    Args:
        op: Name of the op.
        backend: ``'auto'`` takes the compiled op where there is one for the device of ``input`` (and not while exporting to ONNX, which knows
            only PyTorch's own functions), ``'native'`` insists on it, ``'torch'`` takes the plain form.
        input: Features.

    Raises:
        ValueError: If ``backend`` is none of these.
        RuntimeError: If ``backend='native'`` asks for what is not built.
    """
    if backend not in ('auto', 'native', 'torch'):
        raise ValueError(f"{op}: backend must be 'auto', 'native' or 'torch', but got {backend!r}")
    if backend == 'torch':
        return False
    built = (op, input.device.type) in KERNELS
    if backend == 'native' and not built:
        raise RuntimeError(f"{op}: backend='native' must find the op compiled for {input.device.type}, but it is not built: {BUILD}")
    return built and (backend == 'native' or not torch.onnx.is_in_onnx_export())


def register(op: str, composite: Callable[[Tensor, Tensor, Window], Tensor]) -> None:
    """Tell PyTorch what a compiled op gives without running it, and its derivatives.

    Args:
        op: Name of an op ``(input, weight, kernel_size, stride, padding, dilation, ceil_mode)`` that has a partner ``<op>_backward``.
        composite: The same function in plain PyTorch, from which derivatives beyond the first are taken.
    """
    if not LOADED:
        return
    name = f'mmpool_ext::{op}'
    KERNELS.update((op, key.lower()) for key in ('CPU', 'CUDA') if torch._C._dispatch_has_kernel_for_dispatch_key(name, key))
    native_backward = getattr(torch.ops.mmpool_ext, f'{op}_backward')

    def fake(input, weight, *window):
        shape = *input.shape[:2], *Window(*window).output_size(*input.shape[2:])
        return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=suggest_memory_format(input))

    def fake_backward(grad_output, input, weight, *window):
        layout = suggest_memory_format(input)
        return tuple(torch.empty(like.shape, dtype=like.dtype, device=like.device, memory_format=layout) for like in (input, weight))

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2])
        ctx.window = inputs[2:]

    def backward(ctx, grad_output):
        tensors = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient has to be differentiable itself
            wanted = [tensor for tensor, needed in zip(tensors, ctx.needs_input_grad, strict=False) if needed]
            grads = iter(torch.autograd.grad(composite(*tensors, Window(*ctx.window)), wanted, grad_output, create_graph=True))
            grads = [next(grads) if needed else None for needed in ctx.needs_input_grad[:2]]
        else:
            grads = native_backward(grad_output, *tensors, *ctx.window)
        return *grads, *[None] * len(ctx.window)

    torch.library.register_fake(name, fake)
    torch.library.register_fake(f'{name}_backward', fake_backward)
    torch.library.register_autograd(name, backward, setup_context=setup_context)
