"""The compiled ops: the only importer of ``mmpool_ext._C``, which registers them as ``torch.ops.mmpool_ext``.

Also the only place that knows what older torch lacks: ``register_fake`` and ``register_autograd`` came with 2.4. With 2.1 to 2.3 kernels under the
Meta and Autograd keys do the same.
"""

import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.fx import Proxy

from .tracing import is_exporting, is_transformed
from .window import Window

BUILD = 'python setup.py build_ext --inplace (or pip install --no-build-isolation .)'


def torch_release(version: str) -> tuple[int, int]:
    """Give major and minor of a version such as ``2.11.0a0+git``: what decides whether a compiled extension fits."""
    major, minor = version.split('.')[:2]
    return int(major), int(re.sub(r'\D.*', '', minor))


if torch_release(torch.__version__) < (2, 1):
    raise ImportError(f'mmpool_ext: torch must be 2.1 or newer, but got {torch.__version__}; install a newer torch')


def load(name: str = 'mmpool_ext._C') -> bool:
    """Load the extension.

    Returns:
        Whether there is one and ``MMPOOL_EXT_WITH_OPS`` is not 0 in the environment.

    Raises:
        ImportError: If it is there and does not load, or was built for another minor release of torch, whose headers differ: its kernels would
            crash rather than fail. Patch releases and vendors' builds of one minor release fit each other, or else the loader refuses.
    """
    if not WANTED:
        return False
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return False
    found = re.search(rb'mmpool_ext was built for torch (\d+\.\d+[\w.]*)', Path(spec.origin).read_bytes())
    built = found.group(1).decode() if found else 'unknown'
    problem = '' if found and torch_release(built) == torch_release(torch.__version__) else 'another version'
    if not problem:
        try:
            importlib.import_module(name)
        except ImportError as error:
            problem = str(error)
    if problem:
        raise ImportError(
            f'mmpool_ext: the compiled ops must be built for the torch that runs, but {spec.origin} was built for torch {built} and this is torch '
            f'{torch.__version__} ({problem}); build again with {BUILD}, or set MMPOOL_EXT_WITH_OPS=0 to do without'
        )
    return True


WANTED = os.environ.get('MMPOOL_EXT_WITH_OPS', '1') == '1'
BROKEN = ''  # why the extension that is there does not load: raised by the first op, so that the import and its report still work
try:
    LOADED = load()
except ImportError as _error:
    LOADED, BROKEN = False, str(_error)
KERNELS: set[tuple[str, str]] = set()  # (op, device type)


def check_backend(owner: str, backend: str) -> None:
    """Raise ValueError, in the name of an op or a layer, if there is no such backend."""
    if backend not in ('auto', 'native', 'torch'):
        raise ValueError(f"{owner}: backend must be 'auto', 'native' or 'torch', but got {backend!r}")


def use_native(op: str, backend: str, input: Tensor) -> bool:
    """Decide between the compiled op and the plain-PyTorch form.

    Args:
        op: Name of the op.
        backend: ``'auto'`` takes the compiled op where there is one for the device of ``input``, but not while exporting or tracing, since what
            is deployed must not need this package, nor inside ``torch.func``: see :mod:`mmpool_ext.ops.tracing`. ``'native'`` insists on it,
            ``'torch'`` takes the plain form.
        input: Features.

    Raises:
        ValueError: If ``backend`` is none of these.
        RuntimeError: If ``backend='native'`` asks for what is not built, or the compiled ops are there and do not load.
    """
    check_backend(op, backend)
    if backend == 'torch' or isinstance(input, Proxy):  # the op itself decides when the graph runs
        return False
    if BROKEN:
        raise RuntimeError(BROKEN)
    built = (op, input.device.type) in KERNELS
    if backend == 'native' and not built:
        raise RuntimeError(f"{op}: backend='native' must find the op compiled for {input.device.type}, but it is not built: {BUILD}")
    return built and (backend == 'native' or not (is_exporting() or is_transformed()))


def register(op: str, composite: Callable[..., Tensor]) -> None:
    """Register a compiled pooling of one or two tensors, see :func:`register_op`.

    Args:
        op: Name of an op ``(input, kernel_size, stride, padding, dilation, ceil_mode)`` or ``(input, weight, kernel_size, ...)``.
        composite: The same function of the tensors and a :class:`Window` in plain PyTorch, from which derivatives beyond the first are taken.
    """
    count = len(Window._fields)

    def fake(input, *arguments):
        return empty_output(input, arguments[-count:])

    def fake_backward(grad_output, input, *arguments):
        layout = suggest_memory_format(input)
        tensors = input, *arguments[:-count]
        grads = tuple(torch.empty(like.shape, dtype=like.dtype, device=like.device, memory_format=layout) for like in tensors)
        return grads if len(grads) > 1 else grads[0]

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:-count])
        ctx.window = inputs[-count:]

    def backward(ctx, grad_output):
        tensors = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient has to be differentiable itself
            grads = differentiable(composite(*tensors, Window(*ctx.window)), grad_output, tensors, ctx.needs_input_grad)
        else:
            grads = getattr(torch.ops.mmpool_ext, f'{op}_backward')(grad_output, *tensors, *ctx.window)
            grads = [grads] if len(tensors) == 1 else grads
        return *grads, *[None] * len(ctx.window)

    register_op(op, fake, fake_backward, setup_context, backward)


def empty_output(input: Tensor, window: tuple) -> Tensor:
    """Give a tensor like the output of a pooling of ``input``."""
    shape = *input.shape[:2], *Window(*window).output_size(*input.shape[2:])
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=suggest_memory_format(input))


def differentiable(output: Tensor, grad_output: Tensor, tensors: tuple, needed: tuple) -> list:
    """Give the gradients of ``output`` by those of ``tensors`` that need one, with a graph of their own; None by the others."""
    wanted = [tensor for tensor, need in zip(tensors, needed, strict=False) if need]
    grads = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=True))
    return [next(grads) if need else None for _, need in zip(tensors, needed, strict=False)]


def register_op(op: str, fake: Callable, fake_backward: Callable, setup_context: Callable, backward: Callable) -> None:
    """Tell PyTorch what a compiled op gives without running it, and its derivatives; nothing where the ops are not compiled.

    Args:
        op: Name of an op that has a partner ``<op>_backward``.
        fake: The op's arguments to empty outputs.
        fake_backward: The same for the partner.
        setup_context: ``(ctx, inputs, output)`` keeps what ``backward`` reads.
        backward: ``(ctx, *grad_outputs)`` to the gradients of all inputs.
    """
    if not LOADED:
        return
    name = f'mmpool_ext::{op}'
    KERNELS.update((op, key.lower()) for key in ('CPU', 'CUDA') if torch._C._dispatch_has_kernel_for_dispatch_key(name, key))
    if hasattr(torch.library, 'register_autograd'):
        torch.library.register_fake(name, fake)
        torch.library.register_fake(f'{name}_backward', fake_backward)
        torch.library.register_autograd(name, backward, setup_context=setup_context)
    else:
        IMPLEMENTATIONS.impl(op, fake, 'Meta')
        IMPLEMENTATIONS.impl(f'{op}_backward', fake_backward, 'Meta')
        register_function(op, backward, setup_context)


def register_function(op: str, backward: Callable, setup_context: Callable) -> None:
    """Do what ``torch.library.register_autograd`` does, for torch before 2.4.

    Args:
        op: Name of the op.
        backward: ``(ctx, *grad_outputs)`` to the gradients of all inputs.
        setup_context: ``(ctx, inputs, output)`` keeps what ``backward`` reads.
    """
    native = getattr(torch.ops.mmpool_ext, op).default

    def forward(ctx, *inputs):
        with torch._C._AutoDispatchBelowAutograd():
            output = native(*inputs)
        setup_context(ctx, inputs, output)
        return output

    methods = {'forward': staticmethod(forward), 'backward': staticmethod(backward)}
    function: Any = type(op, (torch.autograd.Function,), methods)
    IMPLEMENTATIONS.impl(op, function.apply, 'Autograd')


IMPLEMENTATIONS = torch.library.Library('mmpool_ext', 'IMPL')  # kernels registered through it last as long as it does
