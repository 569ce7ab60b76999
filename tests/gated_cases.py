"""What the tests of the gated LIP and of the instance normalization share: arguments, an oracle in float64, one call for output and gradients."""

import reference
import torch
from pooling_cases import LAYOUTS

from mmpool_ext.ops import gated_lip_pool2d, instance_norm_relu


def arguments(shape=(2, 5, 9, 12), norm=True, dtype=torch.float64, layout='contiguous', seed=0, device='cpu'):
    """Random input, response and, with ``norm``, weight and bias."""
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *size: torch.randn(size, generator=generator, dtype=torch.float64)  # noqa: E731
    maps = [LAYOUTS[layout](tensor.to(device, dtype)) for tensor in (randn(*shape), 3 * randn(*shape) + 1)]
    parameters = [0.5 + randn(shape[1]).abs(), randn(shape[1])] if norm else []
    return [*maps, *(tensor.to(device, torch.promote_types(dtype, torch.float32)) for tensor in parameters)]


def oracle(grad_output, input, response, weight=None, bias=None, gate_scale=12.0, **window):
    """Output and gradients in float64, by the reference pooling and the formula of the normalization."""
    response, *parameters = (tensor.detach().double().requires_grad_() for tensor in (response, weight, bias) if tensor is not None)
    normalized = response
    if parameters:
        centered = response - response.mean((2, 3), keepdim=True)
        deviation = (centered.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        normalized = centered / deviation * parameters[0][:, None, None] + parameters[1][:, None, None]
    logit = gate_scale / (1 + (-normalized).exp())
    output, grad_input, grad_logit = reference.lip_pool2d(input.double(), logit.detach(), grad_output.double(), **window)
    return output, grad_input, *torch.autograd.grad(logit, (response, *parameters), grad_logit)


def run_gated(grad_output, *tensors, **kwargs):
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    output = gated_lip_pool2d(*tensors, **kwargs)
    return output.detach(), *torch.autograd.grad(output, tensors, grad_output)


def gradient_like(shape, window, dtype, seed=1, device='cpu'):
    size = reference.output_shape(shape, **window)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device, dtype)


def norm_arguments(shape, dtype, layout='contiguous', seed=0, device='cpu'):
    """Random input, weight, bias and output gradient."""
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *size: torch.randn(size, generator=generator, dtype=torch.float64)  # noqa: E731
    input, grad_output = 2 * randn(*shape) + 5, randn(*shape)
    wide = torch.promote_types(dtype, torch.float32)
    parameters = [parameter.to(device, wide) for parameter in (randn(shape[1]), randn(shape[1]))]
    return LAYOUTS[layout](input.to(device, dtype)), *parameters, grad_output.to(device, dtype)


def run_norm(input, weight, bias, grad_output, backend):
    tensors = [tensor.detach().requires_grad_() for tensor in (input, weight, bias)]
    output = instance_norm_relu(*tensors, backend=backend)
    return output.detach(), *torch.autograd.grad(output, tensors, grad_output)
