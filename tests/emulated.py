"""The bodies of the CUDA kernels as host code: what tests/ops/emulate.cpp compiles to, called with tensors."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from pooling_cases import OPS

ROOT = Path(__file__).parents[1]
COMPILE = ['c++', '-std=c++17', '-O0', '-I', ROOT / 'csrc', '-I', Path(torch.__file__).parent / 'include', ROOT / 'tests/ops/emulate.cpp']
GATED = -1  # in emulate.cpp; the other ops stand in the order of plan.h's Pools
TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def need_compiler():
    if shutil.which('c++') is None:
        pytest.skip('no C++ compiler')


class Arguments(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ('input', 'weight', 'output', 'grad_output', 'grad_input', 'grad_weight')),
        *((name, ctypes.c_int64) for name in ('batch', 'channels')),
        ('window', ctypes.c_int64 * 12),
        *((name, ctypes.c_int32) for name in ('op', 'type', 'weight_type', 'channels_last', 'backward', 'lanes', 'phases', 'launches')),
        ('coefficients', ctypes.c_void_p),
        ('gate_scale', ctypes.c_double),
    ]


class NormArguments(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ('input', 'weight', 'bias', 'coefficients', 'output', 'grad', 'grad_input', 'sums')),
        *((name, ctypes.c_int64) for name in ('batch', 'channels', 'pixels')),
        ('eps', ctypes.c_double),
        *((name, ctypes.c_int32) for name in ('type', 'grad_type', 'channels_last', 'relu')),
    ]


class Emulated:
    """Blocks and threads one after the other on the CPU."""

    def __init__(self, path):
        subprocess.run([*COMPILE, '-shared', '-fPIC', '-o', path], check=True)
        self.library = ctypes.CDLL(path)
        self.ways = []  # how forward and backward were run the last time

    def __call__(self, op, input, weight, grad_output, window, layout):
        """Return output and gradients of input and weight; what a kernel leaves unwritten stays NaN."""
        return self.pool(list(OPS).index(op), input, weight, grad_output, window, layout)

    def pool(self, op, input, weight, grad_output, window, layout, coefficients=None, grad_dtype=None):
        input, weight, grad_output = (tensor.contiguous(memory_format=layout) for tensor in (input, weight, grad_output))
        results = [torch.full_like(tensor, float('nan')) for tensor in (grad_output, input, weight.to(grad_dtype or weight.dtype))]
        axes = []
        for axis in (0, 1):
            sizes = input.shape[2 + axis], grad_output.shape[2 + axis]
            axes += [*sizes, *(window.get(name, (1, 1))[axis] for name in ('kernel_size', 'stride', 'padding', 'dilation'))]
        self.ways = []
        for backward in (False, True):
            pointers = [tensor.data_ptr() for tensor in (input, weight, results[0], grad_output, *results[1:])]
            types = TYPES.index(input.dtype), TYPES.index(weight.dtype)
            numbers = op, *types, layout == torch.channels_last, backward, 0, 0, 0, None if coefficients is None else coefficients.data_ptr(), 12.0
            arguments = Arguments(*pointers, *input.shape[:2], (ctypes.c_int64 * 12)(*axes), *numbers)
            self.library.emulate(ctypes.byref(arguments))
            self.ways.append({'lanes': arguments.lanes, 'phases': arguments.phases, 'launches': arguments.launches})
        return results

    def norm_arguments(self, input, grad_dtype, relu, layout, **pointers):
        addresses = {name: tensor.data_ptr() for name, tensor in pointers.items()}
        types = {'type': TYPES.index(input.dtype), 'grad_type': TYPES.index(grad_dtype)}
        shape = {'batch': input.shape[0], 'channels': input.shape[1], 'pixels': input.shape[2] * input.shape[3]}
        return NormArguments(input=input.data_ptr(), eps=1e-5, channels_last=layout == torch.channels_last, relu=relu, **addresses, **types, **shape)

    def norm(self, input, weight, bias, layout):
        """Return coefficients and ``relu(instance_norm(input))``."""
        wide = torch.promote_types(input.dtype, torch.float32)
        input, weight, bias = input.contiguous(memory_format=layout), weight.to(wide), bias.to(wide)
        coefficients, output = torch.full((4, *input.shape[:2]), float('nan'), dtype=wide), torch.full_like(input, float('nan'))
        tensors = {'weight': weight, 'bias': bias, 'coefficients': coefficients, 'output': output}
        self.library.emulate_norm(ctypes.byref(self.norm_arguments(input, input.dtype, True, layout, **tensors)))
        return coefficients, output

    def norm_backward(self, grad, input, coefficients, relu, layout):
        """Return gradients of input, weight and bias."""
        grad, input = (tensor.contiguous(memory_format=layout) for tensor in (grad, input))
        grad_input, sums = torch.full_like(input, float('nan')), torch.full_like(coefficients, float('nan'))
        tensors = {'coefficients': coefficients, 'grad': grad, 'grad_input': grad_input, 'sums': sums}
        self.library.emulate_norm(ctypes.byref(self.norm_arguments(input, grad.dtype, relu, layout, **tensors)))
        return grad_input, sums[1].sum(0), sums[0].sum(0)

    def gated(self, grad_output, input, response, weight, bias, window, layout):
        """Return what ``gated_lip_pool2d`` and its backward do, kernel after kernel."""
        wide = torch.promote_types(input.dtype, torch.float32)
        coefficients = None if weight is None else self.norm(response, weight, bias, layout)[0]
        output, grad_input, grad = self.pool(GATED, input, response, grad_output, window, layout, coefficients, wide)
        if weight is None:
            return output, grad_input, grad
        return output, grad_input, *self.norm_backward(grad, response, coefficients, False, layout)
