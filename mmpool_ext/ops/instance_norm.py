"""Instance normalization with its ReLU: one op that keeps dtype and memory format."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from . import _extension
from .gated_lip_pool import check_norm, empty_coefficients, instance_norm
from .tracing import traceable
from .window import DTYPES

__all__ = ['instance_norm_relu']


@traceable
def instance_norm_relu(input: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, *, backend: str = 'auto') -> Tensor:
    """Compute ``relu(instance_norm(input))`` with affine parameters: what follows each convolution of a bottleneck trunk.

    PyTorch's own instance normalization is its batch normalization of a contiguous copy, and its ReLU keeps another map. Here a half is read
    and written as it is, with all arithmetic in float32, and backward keeps ``input`` and four numbers for each channel of each image.

    Args:
        input: ``(N, C, H, W)``, H * W > 1: float64, float32, float16 or bfloat16.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Added to the variance.
        backend: See :func:`lip_pool2d`.

    Returns:
        ``(N, C, H, W)``; dtype and memory format of ``input``.

    Raises:
        TypeError: If ``input`` is none of these dtypes.
        ValueError: If a shape or device does not fit, or there is a single pixel to normalize.
        RuntimeError: If ``backend='native'`` asks for what is not built.
    """
    if not isinstance(input, Tensor) or input.dtype not in DTYPES:
        dtype = getattr(input, 'dtype', type(input))
        raise TypeError(f'instance_norm_relu: input must be a float64, float32, float16 or bfloat16 tensor, but got {dtype}')
    if input.dim() != 4:
        raise ValueError(f'instance_norm_relu: input must be (N, C, H, W), but got {tuple(input.shape)}')
    check_norm('instance_norm_relu', 'input', input, weight, bias)
    if _extension.use_native('instance_norm_relu', backend, input):
        return torch.ops.mmpool_ext.instance_norm_relu(input, weight, bias, eps)[0]
    return composite(input, weight, bias, eps)


def composite(input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Compute :func:`instance_norm_relu` from PyTorch's own functions: differentiable to any order."""
    return F.relu(instance_norm(input, weight, bias, eps)).to(input.dtype)


def _like(input):
    return torch.empty(input.shape, dtype=input.dtype, device=input.device, memory_format=suggest_memory_format(input))


def _fake(input, weight, bias, eps):
    return _like(input), empty_coefficients(input)


def _fake_backward(grad_output, input, coefficients):
    return _like(input), *(torch.empty(input.shape[1], dtype=coefficients.dtype, device=input.device) for _ in range(2))


def _setup_context(ctx, inputs, output):
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_output, _):
    *tensors, coefficients = ctx.saved_tensors
    if grad_output is None:
        return (None,) * 4
    if torch.is_grad_enabled():  # create_graph=True: the gradient has to be differentiable itself
        grads = _extension.differentiable(composite(*tensors, ctx.eps), grad_output, tensors, ctx.needs_input_grad)
    else:
        grads = torch.ops.mmpool_ext.instance_norm_relu_backward(grad_output, tensors[0], coefficients)
        grads = [grad.to(tensor.dtype) for grad, tensor in zip(grads, tensors, strict=True)]
    return *grads, None


_extension.register_op('instance_norm_relu', _fake, _fake_backward, _setup_context, _backward)
