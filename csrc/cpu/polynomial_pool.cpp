#include <torch/library.h>

#include "polynomial_tile.h"
#include "pool.h"

namespace mmpool_ext {
namespace {

at::Tensor polynomial_pool2d(const at::Tensor& input, const at::Tensor& alpha, MMPOOL_WINDOW_ARGUMENTS) {
  const auto window = make_window("polynomial_pool2d", input, alpha, true, kernel_size, stride, padding, dilation, ceil_mode);
  const auto format = input.suggest_memory_format();
  const at::Tensor output = make_output(input, window);
  const auto pool = input.scalar_type() == at::kDouble ? pool_forward<Polynomial> : tile_forward<PolynomialTile>;
  pool("polynomial_pool2d", input.contiguous(format), alpha.contiguous(format), output, window);
  return output;
}

std::tuple<at::Tensor, at::Tensor> polynomial_pool2d_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& alpha, MMPOOL_WINDOW_ARGUMENTS) {
  const auto window = make_window("polynomial_pool2d", input, alpha, true, kernel_size, stride, padding, dilation, ceil_mode);
  check_grad_output("polynomial_pool2d", grad_output, input, window);
  const auto format = input.suggest_memory_format();
  const at::Tensor grad_input = at::empty(input.sizes(), input.options(), format);
  const at::Tensor grad_alpha = at::empty(alpha.sizes(), alpha.options(), format);
  const auto pool = input.scalar_type() == at::kDouble ? pool_backward<Polynomial> : tile_backward<PolynomialTile>;
  pool(
      "polynomial_pool2d", grad_output.contiguous(format), input.contiguous(format), alpha.contiguous(format), grad_input, grad_alpha, window);
  return {grad_input, grad_alpha};
}

TORCH_LIBRARY_IMPL(mmpool_ext, CPU, m) {
  m.impl("polynomial_pool2d", &polynomial_pool2d);
  m.impl("polynomial_pool2d_backward", &polynomial_pool2d_backward);
}

}  // namespace
}  // namespace mmpool_ext
