"""What graphs need that PyTorch makes of the code: whether one is being made, and functions that appear in it as one call."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def is_exporting() -> bool:
    """Tell whether a graph is being made that has to run without this package, and at other sizes than the example's.

    That is so in ``torch.export``, ``torch.onnx.export`` and ``torch.jit.trace``, not in ``torch.compile``. torch before 2.7 cannot tell
    ``torch.export`` from ``torch.compile``: there, ``MMPOOL_EXT_WITH_OPS=0`` keeps compiled ops out of the graph.
    """
    # The flag behind torch.compiler.is_exporting(), which torch.compile takes for true
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or getattr(torch.compiler, '_is_exporting_flag', False)


def is_compiling() -> bool:
    """Tell whether ``torch.compile`` or ``torch.export`` reads the code; torch 2.1 imports its compiler for that, newer ones need not."""
    return torch.compiler.is_compiling() if hasattr(torch.compiler, 'is_compiling') else torch._dynamo.is_compiling()


def is_symbolic() -> bool:
    """Tell whether a graph is being made, in which a branch on a size would hold for some sizes only."""
    return is_exporting() or is_compiling()


def is_transformed() -> bool:
    """Tell whether ``torch.func`` (``grad``, ``vmap``, ...) is at work, for which torch has no derivatives of registered ops."""
    return not is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def traceable(function):
    """Make ``torch.fx`` record a call of ``function`` as one node, so that it may look at sizes and values."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        tensors = (*args, *kwargs.values())
        if has_torch_function(tensors):
            return handle_torch_function(call, tensors, *args, **kwargs)
        return function(*args, **kwargs)

    # torch.compile before 2.4 fails at this function, where newer ones follow it: there the compiled graph ends before it
    return call if hasattr(torch.library, 'register_autograd') else torch.compiler.disable(call)


def top_left(input: Tensor, size: Sequence[int]) -> Tensor:
    """Keep the top left ``size`` of ``(..., H, W)``.

    A slice of the whole map has another layout than one of a part, and an exported graph would hold for one of both: pixels are picked there.
    """
    if not is_exporting():
        return input[..., : size[0], : size[1]]
    for dim, edge in ((-2, size[0]), (-1, size[1])):
        input = input.index_select(dim, torch.arange(edge, device=input.device))
    return input
