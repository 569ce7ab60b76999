// What every launcher does with its arguments, on any device: checks, geometry, layout, the choice of types.
#pragma once

#include <ATen/ATen.h>
#include <torch/library.h>

#include <string>
#include <tuple>

#include "common/window.h"

namespace mmpool_ext {

// The arguments that describe the windows, as they stand in every schema.
#define MMPOOL_WINDOW_ARGUMENTS \
  at::IntArrayRef kernel_size, at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool ceil_mode

// Register a pooling: its functions take input and weight; where the input is its own weight, the op takes it once and gives one gradient.
template <bool kWeightIsInput, auto forward, auto backward>
void register_ops(torch::Library& m, const std::string& name) {
  const std::string name_backward = name + "_backward";
  if constexpr (kWeightIsInput) {
    m.impl(name.c_str(), [](const at::Tensor& input, MMPOOL_WINDOW_ARGUMENTS) {
      return forward(input, input, kernel_size, stride, padding, dilation, ceil_mode);
    });
    m.impl(name_backward.c_str(), [](const at::Tensor& grad_output, const at::Tensor& input, MMPOOL_WINDOW_ARGUMENTS) {
      return std::get<0>(backward(grad_output, input, input, kernel_size, stride, padding, dilation, ceil_mode));
    });
  } else {
    m.impl(name.c_str(), forward);
    m.impl(name_backward.c_str(), backward);
  }
}

// float64 for itself, float32 for all others.
template <typename scalar_t>
using wide_t = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;

inline Axis<int64_t> make_axis(
    const char* op, const at::Tensor& input, int axis, at::IntArrayRef kernel_size, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, bool ceil_mode) {
  const int64_t size = input.size(2 + axis), k = kernel_size[axis], s = stride[axis], p = padding[axis], d = dilation[axis];
  const int64_t span = size + 2 * p - d * (k - 1) - 1;
  bool fits = size > 0 && k > 0 && s > 0 && d > 0 && p >= 0 && 2 * p <= d * (k - 1) + 1 && span >= 0;
  const bool partial = fits && ceil_mode && span % s != 0 && (span / s + 1) * s < size + p;
  const Axis<int64_t> result{size, fits ? span / s + 1 + (partial ? 1 : 0) : 0, k, s, p, d};
  if (p > 0 && size < d) {  // only cells further apart than the image is large can step over it
    for (int64_t window = 0; window < result.output; ++window) fits = fits && result.first_tap(window) < result.end_tap(window);
  }
  TORCH_CHECK_VALUE(
      fits, op, ": every window must fit and hold an input pixel, but got kernel_size ", kernel_size, ", stride ", stride, ", padding ", padding,
      ", dilation ", dilation, " and input ", input.sizes());
  return result;
}

// Geometry of the pooling, after the checks that guard memory. The Python functions check first and say more.
inline Window<int64_t> make_window(
    const char* op, const at::Tensor& input, const at::Tensor& weight, bool weight_per_window, MMPOOL_WINDOW_ARGUMENTS) {
  TORCH_CHECK_VALUE(input.dim() == 4, op, ": input must be (N, C, H, W), but got ", input.sizes());
  const Window<int64_t> window{
      make_axis(op, input, 0, kernel_size, stride, padding, dilation, ceil_mode),
      make_axis(op, input, 1, kernel_size, stride, padding, dilation, ceil_mode)};
  const std::vector<int64_t> output{input.size(0), input.size(1), window.y.output, window.x.output};
  const auto expected = weight_per_window ? at::IntArrayRef(output) : input.sizes();
  TORCH_CHECK_VALUE(weight.sizes() == expected, op, ": weights must have the shape ", expected, ", but got ", weight.sizes());
  TORCH_CHECK_VALUE(weight.device() == input.device(), op, ": weights must be on ", input.device(), ", but are on ", weight.device());
  const bool half = input.scalar_type() == at::kHalf || input.scalar_type() == at::kBFloat16;
  TORCH_CHECK_TYPE(
      weight.scalar_type() == input.scalar_type() || (half && weight.scalar_type() == at::kFloat), op, ": weights must be ",
      input.scalar_type(), ", or float32 beside a half, but are ", weight.scalar_type());
  return window;
}

inline void check_grad_output(const char* op, const at::Tensor& grad_output, const at::Tensor& input, const Window<int64_t>& window) {
  const std::vector<int64_t> expected{input.size(0), input.size(1), window.y.output, window.x.output};
  TORCH_CHECK_VALUE(
      grad_output.sizes() == at::IntArrayRef(expected) && grad_output.scalar_type() == input.scalar_type() &&
          grad_output.device() == input.device(),
      op, ": grad_output must be ", input.scalar_type(), " ", expected, " on ", input.device(), ", but got ", grad_output.scalar_type(), " ",
      grad_output.sizes(), " on ", grad_output.device());
}

inline at::Tensor make_output(const at::Tensor& input, const Window<int64_t>& window) {
  return at::empty({input.size(0), input.size(1), window.y.output, window.x.output}, input.options(), input.suggest_memory_format());
}

// Strides of a dense (N, C, H, W) tensor in either memory format.
struct Layout {
  int64_t batch, channel, row, column;
  explicit Layout(const at::Tensor& dense) : batch(dense.stride(0)), channel(dense.stride(1)), row(dense.stride(2)), column(dense.stride(3)) {}
};

// Call f(scalar, weight) with values of the types of input and weight.
template <typename F>
void dispatch(const char* op, const at::Tensor& input, const at::Tensor& weight, const F& f) {
  const bool same = weight.scalar_type() == input.scalar_type();
  switch (input.scalar_type()) {
    case at::kDouble: return f(double{}, double{});
    case at::kFloat: return f(float{}, float{});
    case at::kHalf: return same ? f(at::Half{}, at::Half{}) : f(at::Half{}, float{});
    case at::kBFloat16: return same ? f(at::BFloat16{}, at::BFloat16{}) : f(at::BFloat16{}, float{});
    default: TORCH_CHECK_TYPE(false, op, ": input must be float64, float32, float16 or bfloat16, but got ", input.scalar_type());
  }
}

}  // namespace mmpool_ext
