// Which bodies pool a tensor on a GPU, and with which blocks. `launch(body, grid, shared_bytes)` runs one over all blocks and threads.
#pragma once

#include <algorithm>
#include <tuple>

#include "any_pool.h"
#include "fixed_pool.h"

namespace mmpool_ext::cuda {

// An operator: its name, its rule for windows in registers, and its rule for any window.
struct LipOp {
  static constexpr char name[] = "lip_pool2d";
  template <bool>
  using Fixed = fixed::Lip;
  template <typename T>
  using Any = Lip<T>;
};
struct GatedLipOp {
  static constexpr char name[] = "gated_lip_pool2d";
  template <bool>
  using Fixed = fixed::GatedLip;
  template <typename T>
  using Any = Lip<T>;
};
struct SoftOp {
  static constexpr char name[] = "soft_pool2d";
  template <bool>
  using Fixed = fixed::Soft;
  template <typename T>
  using Any = Soft<T>;
};
struct LanOp {
  static constexpr char name[] = "lan_pool2d";
  template <bool>
  using Fixed = fixed::Lan;
  template <typename T>
  using Any = Lan<T>;
};
struct PolynomialOp {
  static constexpr char name[] = "polynomial_pool2d";
  template <bool EXACT>
  using Fixed = fixed::Polynomial<EXACT>;
  template <typename T>
  using Any = Polynomial<T>;
};

// Those of one or two tensors, by number for a test.
using Pools = std::tuple<LipOp, LanOp, PolynomialOp, SoftOp>;

template <class Tensors_>
struct Problem {
  using Tensors = Tensors_;
  using scalar_t = typename Tensors::scalar_t;
  using weight_t = typename Tensors::weight_t;

  Tensors tensors;
  Window<int64_t> window;
  int64_t batch, channels;
  bool channels_last;

  // Whether 32 bits count the elements of one image and the rows and columns that its windows reach.
  bool is_narrow() const {
    const auto &y = window.y, &x = window.x;
    const int64_t elements = std::max(y.input, y.output) * std::max(x.input, x.output) * (channels_last ? channels : 1);
    const int64_t reach = std::max(y.input + y.padding + y.stride, x.input + x.padding + x.stride);
    return std::max(elements, reach) < (1 << 30);
  }
  bool is_fixed(int64_t kernel) const {
    const auto is = [&](const Axis<int64_t>& axis) {
      return axis.kernel == kernel && axis.stride == 2 && axis.padding == kernel - 2 && axis.dilation == 1;
    };
    return is(window.x) && is(window.y) && is_narrow();
  }
  // Whether every tensor that is there starts at a multiple of the bytes of a run of `count`, 16 at most.
  bool aligned(int count) const {
    const auto is = [&](const void* tensor, size_t size) { return reinterpret_cast<uintptr_t>(tensor) % std::min<size_t>(16, count * size) == 0; };
    return is(tensors.input, sizeof(scalar_t)) && is(tensors.weight, sizeof(weight_t)) && is(tensors.output, sizeof(scalar_t)) &&
           is(tensors.grad_output, sizeof(scalar_t)) && is(tensors.grad_input, sizeof(scalar_t)) && is(tensors.grad_weight, sizeof(typename Tensors::grad_t));
  }
  Strides input_strides() const { return {channels_last, channels, window.y.input, window.x.input}; }
  Strides output_strides() const { return {channels_last, channels, window.y.output, window.x.output}; }
};

namespace plan {

template <class Op, int K, class Lanes, class Tensors, class Launch>
void fixed_forward(const Problem<Tensors>& problem, const Shape& shape, const Launch& launch) {
  using Body = fixed::Forward<typename Op::template Fixed<sizeof(typename Tensors::scalar_t) == 4>, K, Lanes, Tensors>;
  const auto &y = problem.window.y, &x = problem.window.x;
  const Grid grid(Lanes::channels_last, Lanes::lanes, shape, problem.batch, problem.channels, y.output, x.output);
  launch(
      Body{{problem.tensors, problem.input_strides(), problem.output_strides(), static_cast<int>(y.input), static_cast<int>(x.input),
            static_cast<int>(y.output), static_cast<int>(x.output), grid}},
      grid, 0);
}

template <class Op, int K, class Lanes, class Tensors, class Launch>
void fixed_backward(const Problem<Tensors>& problem, const Shape& shape, const Launch& launch) {
  using Rule = typename Op::template Fixed<sizeof(typename Tensors::scalar_t) == 4>;
  using Body = fixed::Backward<Rule, K, Lanes, Tensors>;
  const auto &y = problem.window.y, &x = problem.window.x;
  // A window for each pair of rows and columns; in ceil_mode there may be one more.
  const int64_t rows = std::max(y.output, (y.input + 1) / 2), columns = std::max(x.output, (x.input + 1) / 2);
  const Grid grid(Lanes::channels_last, Lanes::lanes, shape, problem.batch, problem.channels, rows, columns);
  const fixed::Pool<Rule, K, Lanes, Tensors> pool{
      problem.tensors, problem.input_strides(), problem.output_strides(), static_cast<int>(y.input), static_cast<int>(x.input),
      static_cast<int>(y.output), static_cast<int>(x.output), grid};
  if constexpr (K == 3) {
    const Halo halo(grid);
    launch(Body{pool, halo}, grid, sizeof(float) * Rule::states * Lanes::lanes * halo.slots);
  } else {
    launch(Body{pool}, grid, 0);
  }
}

// Call f(lanes, shape), or return false where the layout asks for the bodies of any window.
template <bool HALO, class Tensors, class F>
bool with_lanes(const Problem<Tensors>& problem, const F& f) {
  if (problem.channels_last) {
    // 16 bytes a thread; with a halo 4 channels, as registers do not hold the windows of 8 halves.
    using Lanes = fixed::AlongChannels<HALO ? 4 : 16 / std::max(sizeof(typename Tensors::scalar_t), sizeof(typename Tensors::weight_t))>;
    if (problem.channels % Lanes::lanes != 0 || !problem.aligned(Lanes::lanes)) return false;
    // 128 bytes of channels; with a halo 32 channels, which leave 8 x 8 windows room in 48 KB of shared memory
    f(Lanes{}, HALO ? Shape{{32 / Lanes::lanes, 8, 8}} : Shape{{8, 8, 4}});
  } else {
    const Shape shape{{32, Grid::most, Grid::most}};
    const bool aligned = problem.aligned(4) && problem.window.x.input % 4 == 0 && problem.window.x.output % 2 == 0;
    aligned ? f(fixed::AlongColumns<4, true>{}, shape) : f(fixed::AlongColumns<4, false>{}, shape);
  }
  return true;
}

template <class Op, typename index_t, class Tensors>
auto any_pool(const Problem<Tensors>& problem, void* rules, bool over_output) {
  using Rule = typename Op::template Any<typename Tensors::wide_t>;
  const auto narrow = [](const Axis<int64_t>& axis) {
    return Axis<index_t>{static_cast<index_t>(axis.input), static_cast<index_t>(axis.output), static_cast<index_t>(axis.kernel),
                         static_cast<index_t>(axis.stride), static_cast<index_t>(axis.padding), static_cast<index_t>(axis.dilation)};
  };
  const auto &y = problem.window.y, &x = problem.window.x;
  const Shape shape = problem.channels_last ? Shape{{64, 8, 8}} : Shape{{64, Grid::most, Grid::most}};
  const Grid grid(
      problem.channels_last, 1, shape, problem.batch, problem.channels, over_output ? y.output : y.input, over_output ? x.output : x.input);
  return any::Pool<Rule, Tensors, index_t>{
      problem.tensors, static_cast<Rule*>(rules), problem.input_strides(), problem.output_strides(), {narrow(y), narrow(x)}, grid};
}

// Call f(index) with a number of the type that counts the elements of one image.
template <class Tensors, class F>
void with_index(const Problem<Tensors>& problem, const F& f) {
  problem.is_narrow() ? f(int32_t{}) : f(int64_t{});
}

}  // namespace plan

template <class Op, class Tensors, class Launch>
void plan_forward(const Problem<Tensors>& problem, const Launch& launch) {
  if constexpr (!std::is_same_v<typename Tensors::scalar_t, double>) {
    const auto fixed = [&](auto lanes, const Shape& shape) {
      using Lanes = decltype(lanes);
      if (problem.is_fixed(3)) plan::fixed_forward<Op, 3, Lanes>(problem, shape, launch);
      if (problem.is_fixed(2)) plan::fixed_forward<Op, 2, Lanes>(problem, shape, launch);
    };
    if ((problem.is_fixed(3) || problem.is_fixed(2)) && plan::with_lanes<false>(problem, fixed)) return;
  }
  plan::with_index(problem, [&](auto index) {
    const auto pool = plan::any_pool<Op, decltype(index)>(problem, nullptr, true);
    launch(any::Forward<std::remove_const_t<decltype(pool)>>{pool}, pool.grid, 0);
  });
}

// `allocate(bytes)` gives memory on the device that lives until the last launch has run.
template <class Op, class Tensors, class Launch, class Allocate>
void plan_backward(const Problem<Tensors>& problem, const Launch& launch, const Allocate& allocate) {
  if constexpr (!std::is_same_v<typename Tensors::scalar_t, double>) {
    const auto fixed_3 = [&](auto lanes, const Shape& shape) {
      plan::fixed_backward<Op, 3, decltype(lanes)>(problem, shape, launch);
    };
    const auto fixed_2 = [&](auto lanes, const Shape& shape) {
      plan::fixed_backward<Op, 2, decltype(lanes)>(problem, shape, launch);
    };
    if (problem.is_fixed(3) && plan::with_lanes<true>(problem, fixed_3)) return;
    if (problem.is_fixed(2) && plan::with_lanes<false>(problem, fixed_2)) return;
  }
  plan::with_index(problem, [&](auto index) {
    using index_t = decltype(index);
    using Pool = decltype(plan::any_pool<Op, index_t>(problem, nullptr, true));
    const auto &y = problem.window.y, &x = problem.window.x;
    void* rules = allocate(static_cast<int64_t>(sizeof(typename Pool::Rule)) * problem.batch * problem.channels * y.output * x.output);
    const auto windows = plan::any_pool<Op, index_t>(problem, rules, true);
    const auto pixels = plan::any_pool<Op, index_t>(problem, rules, false);
    launch(any::Measure<Pool>{windows}, windows.grid, 0);
    launch(any::Gather<Pool>{pixels}, pixels.grid, 0);
  });
}

}  // namespace mmpool_ext::cuda
