// The ops with an instance normalisation inside, on any device: what runs after what. A Device has the kernels.
//
// `coefficients` (kCoefficients, N, C), see common/gate.h, is all that a forward leaves for its backward beside its inputs.
#pragma once

#include <torch/library.h>

#include "arguments.h"
#include "common/gate.h"

namespace mmpool_ext {

inline at::ScalarType wide_type(const at::Tensor& input) { return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

inline void check_norm(const char* op, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  TORCH_CHECK_VALUE(input.dim() == 4, op, ": input must be (N, C, H, W), but got ", input.sizes());
  for (const at::Tensor& parameter : {weight, bias}) {
    TORCH_CHECK_VALUE(
        parameter.dim() == 1 && parameter.size(0) == input.size(1) && parameter.device() == input.device(), op, ": weight and bias must be (",
        input.size(1), ",) on ", input.device(), ", but got ", parameter.sizes(), " on ", parameter.device());
  }
}

inline void check_coefficients(const char* op, const at::Tensor& coefficients, const at::Tensor& input) {
  TORCH_CHECK_VALUE(
      coefficients.dim() == 3 && coefficients.size(0) == kCoefficients && coefficients.size(1) == input.size(0) &&
          coefficients.size(2) == input.size(1) && coefficients.scalar_type() == wide_type(input) && coefficients.device() == input.device(),
      op, ": coefficients must be ", wide_type(input), " (4, N, C) of the forward pass, but got ", coefficients.scalar_type(), " ",
      coefficients.sizes());
}

// Mean, 1 / sqrt(variance + eps), scale and bias of each channel of each image.
template <class Device>
at::Tensor make_coefficients(const at::Tensor& dense, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  const at::Tensor coefficients = at::empty({kCoefficients, dense.size(0), dense.size(1)}, dense.options().dtype(wide_type(dense)));
  if (dense.numel() > 0) {
    Device::coefficients(dense, weight.to(wide_type(dense)).contiguous(), bias.to(wide_type(dense)).contiguous(), eps, coefficients);
  }
  return coefficients;
}

// Gradients of the normalisation's input, weight and bias from that of what it gives, or of its ReLU.
template <class Device>
std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_backward(
    const at::Tensor& grad, const at::Tensor& dense, const at::Tensor& coefficients, bool relu) {
  const at::Tensor grad_input = at::empty_like(dense), sums = at::empty({4, dense.size(0), dense.size(1)}, coefficients.options());
  if (dense.numel() > 0) Device::norm_backward(grad, dense, coefficients, relu, grad_input, sums);
  const at::Tensor totals = sums.slice(0, 0, 2).sum(1);
  return {grad_input, totals[1].clone(), totals[0].clone()};
}

template <class Device>
std::tuple<at::Tensor, at::Tensor> instance_norm_relu(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  check_norm("instance_norm_relu", input, weight, bias);
  const typename Device::Guard guard(input.device());
  const at::Tensor dense = input.contiguous(input.suggest_memory_format()), output = at::empty_like(dense);
  const at::Tensor coefficients = make_coefficients<Device>(dense, weight, bias, eps);
  if (dense.numel() > 0) Device::normalize_relu(dense, coefficients, output);
  return {output, coefficients};
}

template <class Device>
std::tuple<at::Tensor, at::Tensor, at::Tensor> instance_norm_relu_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& coefficients) {
  check_coefficients("instance_norm_relu", coefficients, input);
  TORCH_CHECK_VALUE(
      grad_output.sizes() == input.sizes() && grad_output.scalar_type() == input.scalar_type() && grad_output.device() == input.device(),
      "instance_norm_relu: grad_output must be as input, but got ", grad_output.scalar_type(), " ", grad_output.sizes());
  const typename Device::Guard guard(input.device());
  const auto format = input.suggest_memory_format();
  return norm_backward<Device>(grad_output.contiguous(format), input.contiguous(format), coefficients, true);
}

template <class Device>
std::tuple<at::Tensor, at::Tensor> gated_lip_pool2d(
    const at::Tensor& input, const at::Tensor& response, const c10::optional<at::Tensor>& weight, const c10::optional<at::Tensor>& bias, double eps,
    double gate_scale, MMPOOL_WINDOW_ARGUMENTS) {
  const char* const op = "gated_lip_pool2d";
  const auto window = make_window(op, input, response, false, kernel_size, stride, padding, dilation, ceil_mode);
  const typename Device::Guard guard(input.device());
  const auto format = input.suggest_memory_format();
  const at::Tensor output = make_output(input, window), dense = response.contiguous(format);
  at::Tensor coefficients = at::empty({0}, input.options().dtype(wide_type(input)));
  if (weight.has_value()) {
    check_norm(op, response, *weight, *bias);
    coefficients = make_coefficients<Device>(dense, *weight, *bias, eps);
  }
  if (output.numel() > 0) Device::gated_forward(op, input.contiguous(format), dense, coefficients, gate_scale, output, window);
  return {output, coefficients};
}

template <class Device>
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> gated_lip_pool2d_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& response, const at::Tensor& coefficients, double gate_scale,
    MMPOOL_WINDOW_ARGUMENTS) {
  const char* const op = "gated_lip_pool2d";
  const auto window = make_window(op, input, response, false, kernel_size, stride, padding, dilation, ceil_mode);
  check_grad_output(op, grad_output, input, window);
  const bool normalized = coefficients.dim() == 3;
  if (normalized) check_coefficients(op, coefficients, response);
  const typename Device::Guard guard(input.device());
  const auto format = input.suggest_memory_format();
  const at::Tensor dense = response.contiguous(format), grad_input = at::empty(input.sizes(), input.options(), format);
  const at::Tensor grad = at::empty(response.sizes(), response.options().dtype(wide_type(input)), format);  // of the normalized response
  if (input.numel() > 0) {
    Device::gated_backward(
        op, grad_output.contiguous(format), input.contiguous(format), dense, coefficients, gate_scale, grad_input, grad, window);
  }
  if (!normalized) {
    const at::Tensor none = at::empty({0}, coefficients.options());
    return {grad_input, grad.to(response.scalar_type()), none, none};
  }
  const auto [grad_response, grad_weight, grad_bias] = norm_backward<Device>(grad, dense, coefficients, false);
  return {grad_input, grad_response, grad_weight, grad_bias};
}

template <class Device>
void register_gated(torch::Library& m) {
  m.impl("gated_lip_pool2d", &gated_lip_pool2d<Device>);
  m.impl("gated_lip_pool2d_backward", &gated_lip_pool2d_backward<Device>);
  m.impl("instance_norm_relu", &instance_norm_relu<Device>);
  m.impl("instance_norm_relu_backward", &instance_norm_relu_backward<Device>);
}

}  // namespace mmpool_ext
