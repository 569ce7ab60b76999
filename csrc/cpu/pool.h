// The pooling of any window on the CPU: planes in parallel, each through the bodies of common/pool.h.
#pragma once

#include <ATen/Parallel.h>

#include <vector>

#include "../arguments.h"
#include "../common/pool.h"

namespace mmpool_ext {

// Call f(n, c) for every plane, in parallel; `cost` is the work of one plane in pixels.
template <typename F>
void for_each_plane(const at::Tensor& input, int64_t cost, const F& f) {
  const int64_t channels = input.size(1), grain = std::max<int64_t>(1, at::internal::GRAIN_SIZE / std::max<int64_t>(cost, 1));
  at::parallel_for(0, input.size(0) * channels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) f(plane / channels, plane % channels);
  });
}

template <typename scalar_t>
Plane<scalar_t, int64_t> plane_of(const at::Tensor& dense, int64_t n, int64_t c) {
  const Layout layout(dense);
  using value_t = std::remove_const_t<scalar_t>;
  scalar_t* data;
  if constexpr (std::is_const_v<scalar_t>) {
    data = dense.const_data_ptr<value_t>();
  } else {
    data = dense.mutable_data_ptr<value_t>();
  }
  return {data + n * layout.batch + c * layout.channel, layout.row, layout.column};
}

template <template <typename> class Rule>
void pool_forward(const char* op, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& output, const Window<int64_t>& window) {
  dispatch(op, input, weight, [&](auto scalar, auto weight_scalar) {
    using scalar_t = decltype(scalar);
    using weight_t = decltype(weight_scalar);
    using T = wide_t<scalar_t>;
    for_each_plane(input, 4 * window.y.input * window.x.input, [&](int64_t n, int64_t c) {
      const Planes<scalar_t, weight_t, int64_t> planes{plane_of<const scalar_t>(input, n, c), plane_of<const weight_t>(weight, n, c)};
      const auto out = plane_of<scalar_t>(output, n, c);
      for (int64_t y = 0; y < window.y.output; ++y) {
        for (int64_t x = 0; x < window.x.output; ++x) out(y, x) = static_cast<scalar_t>(measure<Rule<T>, T>(window, planes, y, x).output());
      }
    });
  });
}

template <template <typename> class Rule>
void pool_backward(
    const char* op, const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& grad_input,
    const at::Tensor& grad_weight, const Window<int64_t>& window) {
  dispatch(op, input, weight, [&](auto scalar, auto weight_scalar) {
    using scalar_t = decltype(scalar);
    using weight_t = decltype(weight_scalar);
    using T = wide_t<scalar_t>;
    for_each_plane(input, 8 * window.y.input * window.x.input, [&](int64_t n, int64_t c) {
      const Planes<scalar_t, weight_t, int64_t> planes{plane_of<const scalar_t>(input, n, c), plane_of<const weight_t>(weight, n, c)};
      const auto grad = plane_of<const scalar_t>(grad_output, n, c);
      const auto to_input = plane_of<scalar_t>(grad_input, n, c);
      const auto to_weight = plane_of<weight_t>(grad_weight, n, c);
      std::vector<Rule<T>> rules(window.y.output * window.x.output);
      const Plane<const Rule<T>, int64_t> known{rules.data(), window.x.output, 1};
      for (int64_t y = 0; y < window.y.output; ++y) {
        for (int64_t x = 0; x < window.x.output; ++x) {
          const Rule<T> rule = rules[y * window.x.output + x] = measure<Rule<T>, T>(window, planes, y, x);
          if constexpr (Rule<T>::kWeightPerWindow) to_weight(y, x) = static_cast<weight_t>(gather_window<Rule<T>, T>(window, planes, grad, rule, y, x));
        }
      }
      for (int64_t y = 0; y < window.y.input; ++y) {
        for (int64_t x = 0; x < window.x.input; ++x) {
          const Gradients<T> sum = gather<Rule<T>, T>(window, planes, grad, known, y, x);
          to_input(y, x) = static_cast<scalar_t>(sum.input);
          if constexpr (!Rule<T>::kWeightPerWindow) to_weight(y, x) = static_cast<weight_t>(sum.weight);
        }
      }
    });
  });
}

}  // namespace mmpool_ext
