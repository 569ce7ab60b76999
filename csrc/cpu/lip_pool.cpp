#include <torch/library.h>

#include "lip_tile.h"
#include "pool.h"

namespace mmpool_ext {
namespace {

at::Tensor lip_pool2d(const at::Tensor& input, const at::Tensor& logit, MMPOOL_WINDOW_ARGUMENTS) {
  const auto window = make_window("lip_pool2d", input, logit, false, kernel_size, stride, padding, dilation, ceil_mode);
  const auto format = input.suggest_memory_format();
  const at::Tensor output = make_output(input, window);
  const auto pool = input.scalar_type() == at::kDouble ? pool_forward<Lip> : tile_forward<LipTile>;
  pool("lip_pool2d", input.contiguous(format), logit.contiguous(format), output, window);
  return output;
}

std::tuple<at::Tensor, at::Tensor> lip_pool2d_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& logit, MMPOOL_WINDOW_ARGUMENTS) {
  const auto window = make_window("lip_pool2d", input, logit, false, kernel_size, stride, padding, dilation, ceil_mode);
  check_grad_output("lip_pool2d", grad_output, input, window);
  const auto format = input.suggest_memory_format();
  const at::Tensor grad_input = at::empty(input.sizes(), input.options(), format);
  const at::Tensor grad_logit = at::empty(logit.sizes(), logit.options(), format);
  const auto pool = input.scalar_type() == at::kDouble ? pool_backward<Lip> : tile_backward<LipTile>;
  pool(
      "lip_pool2d", grad_output.contiguous(format), input.contiguous(format), logit.contiguous(format), grad_input, grad_logit, window);
  return {grad_input, grad_logit};
}

TORCH_LIBRARY_IMPL(mmpool_ext, CPU, m) {
  m.impl("lip_pool2d", &lip_pool2d);
  m.impl("lip_pool2d_backward", &lip_pool2d_backward);
}

}  // namespace
}  // namespace mmpool_ext
