#include <torch/library.h>

#include "pool.h"

namespace mmpool_ext {
namespace {

at::Tensor lip_pool2d(const at::Tensor& input, const at::Tensor& logit, MMPOOL_WINDOW_ARGUMENTS) {
  return pool_forward<LipOp>("lip_pool2d", input, logit, false, kernel_size, stride, padding, dilation, ceil_mode);
}

std::tuple<at::Tensor, at::Tensor> lip_pool2d_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& logit, MMPOOL_WINDOW_ARGUMENTS) {
  return pool_backward<LipOp>("lip_pool2d", grad_output, input, logit, false, kernel_size, stride, padding, dilation, ceil_mode);
}

TORCH_LIBRARY_IMPL(mmpool_ext, CUDA, m) {
  m.impl("lip_pool2d", &lip_pool2d);
  m.impl("lip_pool2d_backward", &lip_pool2d_backward);
}

}  // namespace
}  // namespace mmpool_ext
