#include "../gated.h"
#include "channel_pass.h"
#include "launch.h"

namespace mmpool_ext::cuda {
namespace {

Channels channels_of(const at::Tensor& dense) {
  const bool last = dense.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  return {last, dense.size(0), dense.size(1), dense.size(2) * dense.size(3)};
}

template <typename T>
Gates<T> gates_of(const at::Tensor& coefficients, const at::Tensor& input, double gate_scale) {
  return {coefficients.numel() > 0 ? coefficients.const_data_ptr<T>() : nullptr, input.size(0), input.size(1), static_cast<T>(gate_scale)};
}

// Memory that lives as long as this, which is until the launches are queued: the allocator hands it out again in the order of the stream.
struct Allocator {
  at::TensorOptions options;
  mutable at::Tensor memory = {};

  void* operator()(int64_t bytes) const {
    memory = at::empty({bytes}, options.dtype(at::kByte));
    return memory.mutable_data_ptr();
  }
};

struct Cuda {
  using Guard = c10::cuda::CUDAGuard;

  static void coefficients(const at::Tensor& dense, const at::Tensor& weight, const at::Tensor& bias, double eps, const at::Tensor& result) {
    const char* const op = "instance_norm_relu";
    dispatch(op, dense, dense, [&](auto scalar, auto) {
      using scalar_t = decltype(scalar);
      using T = wide_t<scalar_t>;
      Allocator allocate{dense.options()};
      plan_coefficients<T>(
          channels_of(dense), static_cast<const scalar_t*>(dense.const_data_ptr()), weight.const_data_ptr<T>(), bias.const_data_ptr<T>(),
          static_cast<T>(eps), result.mutable_data_ptr<T>(), Launch{op}, allocate);
    });
  }

  static void normalize_relu(const at::Tensor& dense, const at::Tensor& coefficients, const at::Tensor& output) {
    const char* const op = "instance_norm_relu";
    dispatch(op, dense, dense, [&](auto scalar, auto) {
      using scalar_t = decltype(scalar);
      using T = wide_t<scalar_t>;
      plan_normalize_relu<T>(
          channels_of(dense), static_cast<const scalar_t*>(dense.const_data_ptr()), gates_of<T>(coefficients, dense, 0),
          static_cast<scalar_t*>(output.mutable_data_ptr()), Launch{op});
    });
  }

  static void norm_backward(
      const at::Tensor& grad, const at::Tensor& dense, const at::Tensor& coefficients, bool relu, const at::Tensor& grad_input,
      const at::Tensor& sums) {
    const char* const op = "instance_norm_relu";
    dispatch(op, dense, grad, [&](auto scalar, auto grad_scalar) {
      using scalar_t = decltype(scalar);
      using grad_t = decltype(grad_scalar);
      using T = wide_t<scalar_t>;
      Allocator allocate{dense.options()};
      const auto plan = relu ? plan_norm_backward<true, T, scalar_t, grad_t, Launch, Allocator> : plan_norm_backward<false, T, scalar_t, grad_t, Launch, Allocator>;
      plan(
          channels_of(dense), static_cast<const grad_t*>(grad.const_data_ptr()), static_cast<const scalar_t*>(dense.const_data_ptr()),
          gates_of<T>(coefficients, dense, 0), static_cast<scalar_t*>(grad_input.mutable_data_ptr()), sums.mutable_data_ptr<T>(), Launch{op},
          allocate);
    });
  }

  static void gated_forward(
      const char* op, const at::Tensor& input, const at::Tensor& response, const at::Tensor& coefficients, double gate_scale,
      const at::Tensor& output, const Window<int64_t>& window) {
    dispatch(op, input, response, [&](auto scalar, auto weight) {
      using T = wide_t<decltype(scalar)>;
      const auto gates = gates_of<T>(coefficients, input, gate_scale);
      plan_forward<GatedLipOp>(
          make_problem<decltype(scalar), decltype(weight)>(input, response, output, {}, {}, {}, window, input.suggest_memory_format(), gates), Launch{op});
    });
  }

  static void gated_backward(
      const char* op, const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& response, const at::Tensor& coefficients,
      double gate_scale, const at::Tensor& grad_input, const at::Tensor& grad, const Window<int64_t>& window) {
    Allocator allocate{input.options()};
    dispatch(op, input, response, [&](auto scalar, auto weight) {
      using T = wide_t<decltype(scalar)>;
      const auto gates = gates_of<T>(coefficients, input, gate_scale);
      const auto problem = make_problem<decltype(scalar), decltype(weight)>(
          input, response, {}, grad_output, grad_input, grad, window, input.suggest_memory_format(), gates);
      plan_backward<GatedLipOp>(problem, Launch{op}, allocate);
    });
  }
};

}  // namespace
}  // namespace mmpool_ext::cuda

TORCH_LIBRARY_IMPL(mmpool_ext, CUDA, m) { mmpool_ext::register_gated<mmpool_ext::cuda::Cuda>(m); }
