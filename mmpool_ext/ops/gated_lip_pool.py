"""Local importance-based pooling with the normalization and the gate of its logit: one op, which keeps no map of logits."""

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from . import _extension
from .lip_pool import composite as lip_composite
from .tracing import traceable
from .window import Window, check_shape, check_weight, wide

__all__ = ['gated_lip_pool2d']

MAX_GATE_SCALE = 32.0  # exp(-32) is far above the smallest float32


@traceable
def gated_lip_pool2d(
    input: Tensor,
    response: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    gate_scale: float = 12.0,
    eps: float = 1e-5,
    *,
    kernel_size=3,
    stride=2,
    padding=1,
    dilation=1,
    ceil_mode: bool = False,
    backend: str = 'auto',
) -> Tensor:
    """Pool by the gated logit ``gate_scale * sigmoid(instance_norm(response))``: :func:`lip_pool2d` of it, with less memory and time.

    The paper's logit modules end in an affine instance normalization and an amplified sigmoid (Gao et al., "LIP", ICCV 2019, Table 2 and
    Eq. 5). Here both are computed inside the pooling, in float32 also beside a half: backward keeps ``input``, ``response`` and four numbers for
    each channel of each image. A gated logit lies between 0 and ``gate_scale``, so that no window needs its largest logit first.

    Args:
        input: Features ``(N, C, H, W)``: float64, float32, float16 or bfloat16.
        response: What the logit's convolution gives, the shape and device of ``input``; its dtype, or float32 beside a half.
        weight: Weight of the instance normalization ``(C,)``; None, as ``bias``, for no normalization.
        bias: Its bias ``(C,)``.
        gate_scale: Largest logit, above 0 and at most 32.
        eps: Added to the variance of the normalization.
        kernel_size: Window edge in input pixels, >= 1; an int or a (vertical, horizontal) pair, as are the next three.
        stride: Step from window to window, >= 1.
        padding: Pixels added on each side; they take no weight.
        dilation: Step from pixel to pixel inside a window, >= 1.
        ceil_mode: Whether to keep a last window that the padded input fills only in part.
        backend: See :func:`lip_pool2d`.

    Returns:
        ``(N, C, H_out, W_out)``, see :func:`lip_pool2d`; dtype of ``input``.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If shapes or devices differ, an argument is out of range, or there is a single pixel to normalize.
        RuntimeError: If ``backend='native'`` asks for what is not built.

    Example:
        >>> input = torch.tensor([[[[1., 2.], [3., 4.]]]])
        >>> gated_lip_pool2d(input, torch.zeros_like(input), kernel_size=2, padding=0)
        tensor([[[[2.5000]]]])
    """
    window = Window.checked('gated_lip_pool2d', input, kernel_size, stride, padding, dilation, ceil_mode)
    check_weight('gated_lip_pool2d', 'response', response, input)
    check_shape('gated_lip_pool2d', 'response', response, input)
    if not 0 < gate_scale <= MAX_GATE_SCALE:
        raise ValueError(f'gated_lip_pool2d: gate_scale must be above 0 and at most {MAX_GATE_SCALE:g}, but got {gate_scale}')
    if (weight is None) != (bias is None):
        raise ValueError('gated_lip_pool2d: weight and bias must both be given or both be None, but got one of them')
    if weight is not None and bias is not None:
        check_norm('gated_lip_pool2d', 'response', response, weight, bias)
    if _extension.use_native('gated_lip_pool2d', backend, input):
        return torch.ops.mmpool_ext.gated_lip_pool2d(input, response, weight, bias, eps, gate_scale, *window)[0]
    return composite(input, response, weight, bias, eps, gate_scale, window)


def check_norm(op: str, what: str, input: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Check what an affine instance normalization takes: parameters for each channel, and more than one pixel."""
    for name, parameter in (('weight', weight), ('bias', bias)):
        if parameter.shape != input.shape[1:2] or parameter.device != input.device:
            raise ValueError(
                f'{op}: {name} must have the shape ({input.shape[1]},) on {input.device}, but got {tuple(parameter.shape)} on {parameter.device}'
            )
    if input.shape[2] * input.shape[3] == 1:
        raise ValueError(f'{op}: {what} must have more than one pixel to normalize over, but got {tuple(input.shape)}')


def composite(input: Tensor, response: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, gate_scale: float, window: Window) -> Tensor:
    """Compute :func:`gated_lip_pool2d` from PyTorch's own functions: differentiable to any order."""
    normalized = wide(response) if weight is None or bias is None else instance_norm(response, weight, bias, eps)
    return lip_composite(input, gate_scale * normalized.sigmoid(), window)


def instance_norm(input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize each channel of each image, at least in float32; unlike PyTorch's own, also in an empty batch."""
    values = wide(input)
    variance, mean = torch.var_mean(values, (2, 3), correction=0, keepdim=True)
    scale, shift = (parameter.to(values.dtype)[:, None, None] for parameter in (weight, bias))
    return (values - mean) * (variance + eps).rsqrt() * scale + shift


def empty_coefficients(input: Tensor) -> Tensor:
    """Give a tensor like the one that a normalization keeps for its backward pass: 4 numbers for each channel of each image."""
    return torch.empty(4, *input.shape[:2], dtype=wide_dtype(input), device=input.device)


def wide_dtype(input: Tensor) -> torch.dtype:
    """Give the dtype of all arithmetic on ``input``."""
    return torch.promote_types(input.dtype, torch.float32)


def _fake(input, response, weight, bias, eps, gate_scale, *window):
    none = torch.empty(0, dtype=wide_dtype(input), device=input.device)
    return _extension.empty_output(input, window), none if weight is None else empty_coefficients(input)


def _fake_backward(grad_output, input, response, coefficients, gate_scale, *window):
    layout = suggest_memory_format(input)
    grads = [torch.empty(like.shape, dtype=like.dtype, device=like.device, memory_format=layout) for like in (input, response)]
    channels = input.shape[1] if coefficients.dim() == 3 else 0
    return *grads, *(torch.empty(channels, dtype=coefficients.dtype, device=input.device) for _ in range(2))


def _setup_context(ctx, inputs, output):
    input, response, weight, bias, ctx.eps, ctx.gate_scale, *ctx.window = inputs
    ctx.save_for_backward(input, response, weight, bias, output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_output, _):
    *tensors, coefficients = ctx.saved_tensors
    if grad_output is None:
        return (None,) * (6 + len(ctx.window))
    if torch.is_grad_enabled():  # create_graph=True: the gradient has to be differentiable itself
        output = composite(*tensors, ctx.eps, ctx.gate_scale, Window(*ctx.window))
        grads = _extension.differentiable(output, grad_output, tensors, ctx.needs_input_grad)
    else:
        native_backward = torch.ops.mmpool_ext.gated_lip_pool2d_backward
        grads = native_backward(grad_output, *tensors[:2], coefficients, ctx.gate_scale, *ctx.window)
        grads = [None if tensor is None else grad.to(tensor.dtype) for grad, tensor in zip(grads, tensors, strict=True)]
    return *grads, *[None] * (2 + len(ctx.window))


_extension.register_op('gated_lip_pool2d', _fake, _fake_backward, _setup_context, _backward)
