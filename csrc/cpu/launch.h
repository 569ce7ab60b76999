// Launchers on the CPU: planes in parallel, each through the functions of common/definition.h; tiles in parallel, each through a fast method.
#pragma once

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <vector>

#include "../arguments.h"
#include "../common/definition.h"
#include "tile.h"

namespace mmpool_ext::cpu {

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

// By the definition. Gates tell what makes the weights of the weight tensor.
template <template <typename> class Rule, class Gates = NoGates>
void define_forward(
    const char* op, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& output, const Window<int64_t>& window,
    const Gates& gates = {}) {
  dispatch(op, input, weight, [&](auto scalar, auto weight_scalar) {
    using scalar_t = decltype(scalar);
    using weight_t = decltype(weight_scalar);
    using T = wide_t<scalar_t>;
    for_each_plane(input, 4 * window.y.input * window.x.input, [&](int64_t n, int64_t c) {
      const Planes<scalar_t, weight_t, int64_t, typename Gates::gate_t> planes{
          plane_of<const scalar_t>(input, n, c), plane_of<const weight_t>(weight, n, c), gates.at(n, c)};
      const auto out = plane_of<scalar_t>(output, n, c);
      for (int64_t y = 0; y < window.y.output; ++y) {
        for (int64_t x = 0; x < window.x.output; ++x) out(y, x) = static_cast<scalar_t>(measure<Rule<T>, T>(window, planes, y, x).output());
      }
    });
  });
}

template <template <typename> class Rule, class Gates = NoGates>
void define_backward(
    const char* op, const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& grad_input,
    const at::Tensor& grad_weight, const Window<int64_t>& window, const Gates& gates = {}) {
  dispatch(op, input, weight, [&](auto scalar, auto weight_scalar) {
    using scalar_t = decltype(scalar);
    using weight_t = decltype(weight_scalar);
    using T = wide_t<scalar_t>;
    using grad_t = std::conditional_t<std::is_same_v<Gates, NoGates>, weight_t, T>;
    for_each_plane(input, 8 * window.y.input * window.x.input, [&](int64_t n, int64_t c) {
      const Planes<scalar_t, weight_t, int64_t, typename Gates::gate_t> planes{
          plane_of<const scalar_t>(input, n, c), plane_of<const weight_t>(weight, n, c), gates.at(n, c)};
      const auto grad = plane_of<const scalar_t>(grad_output, n, c);
      const auto to_input = plane_of<scalar_t>(grad_input, n, c);
      const auto to_weight = plane_of<grad_t>(grad_weight, n, c);
      std::vector<Rule<T>> rules(window.y.output * window.x.output);
      const Plane<const Rule<T>, int64_t> states{rules.data(), window.x.output, 1};
      for (int64_t y = 0; y < window.y.output; ++y) {
        for (int64_t x = 0; x < window.x.output; ++x) {
          const Rule<T> rule = rules[y * window.x.output + x] = measure<Rule<T>, T>(window, planes, y, x);
          if constexpr (Rule<T>::kWeightPerWindow) to_weight(y, x) = static_cast<grad_t>(gather_window<Rule<T>, T>(window, planes, grad, rule, y, x));
        }
      }
      for (int64_t y = 0; y < window.y.input; ++y) {
        for (int64_t x = 0; x < window.x.input; ++x) {
          const Gradients<T> sum = gather<Rule<T>, T>(window, planes, grad, states, y, x);
          to_input(y, x) = static_cast<scalar_t>(sum.input);
          if constexpr (has_weight_per_pixel<Rule<T>>()) to_weight(y, x) = static_cast<grad_t>(sum.weight);
        }
      }
    });
  });
}

template <typename scalar_t>
Tile<scalar_t> tile_of(const at::Tensor& dense, bool channels_last, int64_t n, int64_t c) {
  const Plane<scalar_t, int64_t> plane = plane_of<scalar_t>(dense, n, c);
  return {plane.data, plane.row, plane.column, channels_last ? 1 : dense.size(2) * dense.size(3)};
}

// Call f(n, c, begin, end) for every tile and its share [begin, end) of `rows`, in parallel; f is made once a thread by `make`.
template <typename Make>
void for_each_tile(const at::Tensor& input, const Window<int64_t>& window, bool channels_last, int64_t rows, const Make& make) {
  const int64_t batch = input.size(0), channels = input.size(1);
  if (batch * channels == 0) return;
  const int64_t threads = at::get_num_threads();
  int64_t units;
  if (channels_last) {  // long runs of memory count for more than the cache
    const int64_t cuts = std::max<int64_t>(1, channels * window.x.input / 8192);
    units = std::min(channels, whole_blocks((channels + cuts - 1) / cuts));
  } else {  // small planes together
    units = std::clamp<int64_t>(kBand / (window.y.input * window.x.input), 1, std::min(channels, (batch * channels + threads - 1) / threads));
    if (units > 4) units -= units % 4;  // more often whole blocks, and a divisor of the channels
  }
  const Lines lines(window, channels_last, units), last_lines(window, channels_last, channels % units == 0 ? units : channels % units);
  const int64_t blocks = (channels + units - 1) / units, tiles = batch * blocks;
  const int64_t parts = std::max<int64_t>(1, std::min(rows / 16, 4 * threads / tiles));  // of a tile's rows, where tiles are few
  at::parallel_for(0, tiles * parts, 1, [&](int64_t begin, int64_t end) {
    auto f = make(lines);
    auto f_last = make(last_lines);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t tile = task / parts, part = task % parts, c = tile % blocks * units;
      (c + units <= channels ? f : f_last)(tile / blocks, c, rows * part / parts, rows * (part + 1) / parts);
    }
  });
}

// By a fast method, which float64 has none of.
template <template <typename, typename> class Method, class Gates = NoGates>
void tile_forward(
    const char* op, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& output, const Window<int64_t>& window,
    const Gates& gates = {}) {
  const bool last = input.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  dispatch(op, input, weight, [&](auto scalar, auto weight_scalar) {
    using scalar_t = decltype(scalar);
    using weight_t = decltype(weight_scalar);
    if constexpr (!std::is_same_v<scalar_t, double>) {
      for_each_tile(input, window, last, window.y.output, [&](const Lines& lines) {
        return [&, method = Method<scalar_t, weight_t>(lines, false)](int64_t n, int64_t c, int64_t begin, int64_t end) mutable {
          if constexpr (!std::is_same_v<Gates, NoGates>) method.set_gates(gates, n, c);
          method.forward(
              tile_of<const scalar_t>(input, last, n, c), tile_of<const weight_t>(weight, last, n, c), tile_of<scalar_t>(output, last, n, c), begin, end);
        };
      });
    }
  });
}

template <template <typename, typename> class Method, class Gates = NoGates>
void tile_backward(
    const char* op, const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& grad_input,
    const at::Tensor& grad_weight, const Window<int64_t>& window, const Gates& gates = {}) {
  const bool last = input.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  dispatch(op, input, weight, [&](auto scalar, auto weight_scalar) {
    using scalar_t = decltype(scalar);
    using weight_t = decltype(weight_scalar);
    using grad_t = std::conditional_t<std::is_same_v<Gates, NoGates>, weight_t, float>;
    if constexpr (!std::is_same_v<scalar_t, double>) {
      for_each_tile(input, window, last, window.y.input, [&](const Lines& lines) {
        return [&, method = Method<scalar_t, weight_t>(lines, true)](int64_t n, int64_t c, int64_t begin, int64_t end) mutable {
          if constexpr (!std::is_same_v<Gates, NoGates>) method.set_gates(gates, n, c);
          method.backward(
              tile_of<const scalar_t>(grad_output, last, n, c), tile_of<const scalar_t>(input, last, n, c), tile_of<const weight_t>(weight, last, n, c),
              tile_of<scalar_t>(grad_input, last, n, c), tile_of<grad_t>(grad_weight, last, n, c), begin, end);
        };
      });
    }
  });
}

template <class Op, typename = void>
struct HasMethod : std::false_type {};
template <class Op>
struct HasMethod<Op, std::void_t<typename Op::template Method<float, float>>> : std::true_type {};

template <class Op>
at::Tensor pool_forward(const at::Tensor& input, const at::Tensor& weight, MMPOOL_WINDOW_ARGUMENTS) {
  constexpr bool per_window = Op::template Rule<float>::kWeightPerWindow;
  const auto window = make_window(Op::name, input, weight, per_window, kernel_size, stride, padding, dilation, ceil_mode);
  const auto format = input.suggest_memory_format();
  const at::Tensor output = make_output(input, window);
  auto* pool = define_forward<Op::template Rule, NoGates>;
  if constexpr (HasMethod<Op>::value) {
    if (input.scalar_type() != at::kDouble) pool = tile_forward<Op::template Method, NoGates>;
  }
  pool(Op::name, input.contiguous(format), weight.contiguous(format), output, window, {});
  return output;
}

template <class Op>
std::tuple<at::Tensor, at::Tensor> pool_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& weight, MMPOOL_WINDOW_ARGUMENTS) {
  using Rule = typename Op::template Rule<float>;
  const auto window = make_window(Op::name, input, weight, Rule::kWeightPerWindow, kernel_size, stride, padding, dilation, ceil_mode);
  check_grad_output(Op::name, grad_output, input, window);
  const auto format = input.suggest_memory_format();
  const at::Tensor grad_input = at::empty(input.sizes(), input.options(), format);
  const at::Tensor grad_weight = Rule::kWeightIsInput ? grad_input : at::empty(weight.sizes(), weight.options(), format);
  auto* pool = define_backward<Op::template Rule, NoGates>;
  if constexpr (HasMethod<Op>::value) {
    if (input.scalar_type() != at::kDouble) pool = tile_backward<Op::template Method, NoGates>;
  }
  pool(Op::name, grad_output.contiguous(format), input.contiguous(format), weight.contiguous(format), grad_input, grad_weight, window, {});
  return {grad_input, grad_weight};
}

template <class Op>
void register_pool(torch::Library& m) {
  register_ops<Op::template Rule<float>::kWeightIsInput, pool_forward<Op>, pool_backward<Op>>(m, Op::name);
}

}  // namespace mmpool_ext::cpu
