// Launches the bodies that plan.h chooses, on the input's device and current stream.
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../arguments.h"
#include "plan.h"

namespace mmpool_ext::cuda {

template <class Body>
__global__ void __launch_bounds__(Grid::most, Body::phases == 2 ? 2 : 0) run(const __grid_constant__ Body body) {
  extern __shared__ float4 shared[];
  const Thread thread{threadIdx.x, threadIdx.y, threadIdx.z};
  body.first(blockIdx.x, thread, reinterpret_cast<float*>(shared));
  if constexpr (Body::phases > 1) {
    __syncthreads();
    body.second(blockIdx.x, thread, reinterpret_cast<float*>(shared));
  }
  if constexpr (Body::phases > 2) {
    __syncthreads();
    body.third(blockIdx.x, thread, reinterpret_cast<float*>(shared));
  }
}

struct Launch {
  const char* op;

  template <class Body, class Blocks>
  void operator()(const Body& body, const Blocks& grid, size_t shared_bytes) const {
    TORCH_CHECK_VALUE(grid.blocks <= std::numeric_limits<int32_t>::max(), op, ": input must take at most 2^31 - 1 blocks, but takes ", grid.blocks);
    const dim3 block(grid.block[0], grid.block[1], grid.block[2]);
    run<<<static_cast<uint32_t>(grid.blocks), block, shared_bytes, c10::cuda::getCurrentCUDAStream()>>>(body);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

// The problem of tensors that are dense in one memory format; a tensor that is not there has no pointer.
template <typename scalar_t, typename weight_t, class Gates = NoGates>
Problem<Tensors<scalar_t, weight_t, Gates>> make_problem(
    const at::Tensor& input, const at::Tensor& weight, const at::Tensor& output, const at::Tensor& grad_output, const at::Tensor& grad_input,
    const at::Tensor& grad_weight, const Window<int64_t>& window, at::MemoryFormat format, const Gates& gates = {}) {
  const auto written = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr() : nullptr; };
  const void* grad = grad_output.defined() ? grad_output.const_data_ptr() : nullptr;
  return {
      {static_cast<const scalar_t*>(input.const_data_ptr()), static_cast<const weight_t*>(weight.const_data_ptr()),
       static_cast<scalar_t*>(written(output)), static_cast<const scalar_t*>(grad), static_cast<scalar_t*>(written(grad_input)),
       static_cast<typename Tensors<scalar_t, weight_t, Gates>::grad_t*>(written(grad_weight)), gates},
      window,
      input.size(0),
      input.size(1),
      format == at::MemoryFormat::ChannelsLast};
}

template <class Op>
at::Tensor pool_forward(const at::Tensor& input, const at::Tensor& weight, MMPOOL_WINDOW_ARGUMENTS) {
  const auto window = make_window(Op::name, input, weight, Op::template Any<float>::kWeightPerWindow, kernel_size, stride, padding, dilation, ceil_mode);
  const c10::cuda::CUDAGuard guard(input.device());
  const auto format = input.suggest_memory_format();
  const at::Tensor output = make_output(input, window), dense = input.contiguous(format), dense_weight = weight.contiguous(format);
  if (output.numel() == 0) return output;
  dispatch(Op::name, input, weight, [&](auto scalar, auto weight_scalar) {
    plan_forward<Op>(
        make_problem<decltype(scalar), decltype(weight_scalar)>(dense, dense_weight, output, {}, {}, {}, window, format), Launch{Op::name});
  });
  return output;
}

template <class Op>
std::tuple<at::Tensor, at::Tensor> pool_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& weight, MMPOOL_WINDOW_ARGUMENTS) {
  const auto window = make_window(Op::name, input, weight, Op::template Any<float>::kWeightPerWindow, kernel_size, stride, padding, dilation, ceil_mode);
  check_grad_output(Op::name, grad_output, input, window);
  const c10::cuda::CUDAGuard guard(input.device());
  const auto format = input.suggest_memory_format();
  const at::Tensor grad_input = at::empty(input.sizes(), input.options(), format);
  const at::Tensor grad_weight = Op::template Any<float>::kWeightIsInput ? grad_input : at::empty(weight.sizes(), weight.options(), format);
  if (input.numel() == 0) return {grad_input, grad_weight};
  const at::Tensor dense_grad = grad_output.contiguous(format), dense = input.contiguous(format), dense_weight = weight.contiguous(format);
  at::Tensor rules;
  const auto allocate = [&](int64_t bytes) {
    rules = at::empty({bytes}, input.options().dtype(at::kByte));
    return rules.mutable_data_ptr();
  };
  dispatch(Op::name, input, weight, [&](auto scalar, auto weight_scalar) {
    const auto problem =
        make_problem<decltype(scalar), decltype(weight_scalar)>(dense, dense_weight, {}, dense_grad, grad_input, grad_weight, window, format);
    plan_backward<Op>(problem, Launch{Op::name}, allocate);
  });
  return {grad_input, grad_weight};
}

template <class Op>
void register_pool(torch::Library& m) {
  register_ops<Op::template Any<float>::kWeightIsInput, pool_forward<Op>, pool_backward<Op>>(m, Op::name);
}

}  // namespace mmpool_ext::cuda
