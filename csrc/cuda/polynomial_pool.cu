#include <torch/library.h>

#include "pool.h"

namespace mmpool_ext {
namespace {

at::Tensor polynomial_pool2d(const at::Tensor& input, const at::Tensor& alpha, MMPOOL_WINDOW_ARGUMENTS) {
  return pool_forward<PolynomialOp>("polynomial_pool2d", input, alpha, true, kernel_size, stride, padding, dilation, ceil_mode);
}

std::tuple<at::Tensor, at::Tensor> polynomial_pool2d_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& alpha, MMPOOL_WINDOW_ARGUMENTS) {
  return pool_backward<PolynomialOp>("polynomial_pool2d", grad_output, input, alpha, true, kernel_size, stride, padding, dilation, ceil_mode);
}

TORCH_LIBRARY_IMPL(mmpool_ext, CUDA, m) {
  m.impl("polynomial_pool2d", &polynomial_pool2d);
  m.impl("polynomial_pool2d_backward", &polynomial_pool2d_backward);
}

}  // namespace
}  // namespace mmpool_ext
