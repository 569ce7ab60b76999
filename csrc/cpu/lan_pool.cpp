#include <torch/library.h>

#include "pool.h"

namespace mmpool_ext {
namespace {

at::Tensor lan_pool2d(const at::Tensor& input, const at::Tensor& importance, MMPOOL_WINDOW_ARGUMENTS) {
  const auto window = make_window("lan_pool2d", input, importance, false, kernel_size, stride, padding, dilation, ceil_mode);
  const auto format = input.suggest_memory_format();
  const at::Tensor output = make_output(input, window);
  pool_forward<Lan>("lan_pool2d", input.contiguous(format), importance.contiguous(format), output, window);
  return output;
}

std::tuple<at::Tensor, at::Tensor> lan_pool2d_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& importance, MMPOOL_WINDOW_ARGUMENTS) {
  const auto window = make_window("lan_pool2d", input, importance, false, kernel_size, stride, padding, dilation, ceil_mode);
  check_grad_output("lan_pool2d", grad_output, input, window);
  const auto format = input.suggest_memory_format();
  const at::Tensor grad_input = at::empty(input.sizes(), input.options(), format);
  const at::Tensor grad_importance = at::empty(importance.sizes(), importance.options(), format);
  pool_backward<Lan>(
      "lan_pool2d", grad_output.contiguous(format), input.contiguous(format), importance.contiguous(format), grad_input, grad_importance, window);
  return {grad_input, grad_importance};
}

TORCH_LIBRARY_IMPL(mmpool_ext, CPU, m) {
  m.impl("lan_pool2d", &lan_pool2d);
  m.impl("lan_pool2d_backward", &lan_pool2d_backward);
}

}  // namespace
}  // namespace mmpool_ext
