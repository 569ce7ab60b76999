#include <torch/library.h>

#include "pool.h"

namespace mmpool_ext {
namespace {

at::Tensor lan_pool2d(const at::Tensor& input, const at::Tensor& importance, MMPOOL_WINDOW_ARGUMENTS) {
  return pool_forward<LanOp>("lan_pool2d", input, importance, false, kernel_size, stride, padding, dilation, ceil_mode);
}

std::tuple<at::Tensor, at::Tensor> lan_pool2d_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& importance, MMPOOL_WINDOW_ARGUMENTS) {
  return pool_backward<LanOp>("lan_pool2d", grad_output, input, importance, false, kernel_size, stride, padding, dilation, ceil_mode);
}

TORCH_LIBRARY_IMPL(mmpool_ext, CUDA, m) {
  m.impl("lan_pool2d", &lan_pool2d);
  m.impl("lan_pool2d_backward", &lan_pool2d_backward);
}

}  // namespace
}  // namespace mmpool_ext
