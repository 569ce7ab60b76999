// Any window on a GPU, one output or one pixel a thread, through the functions of common/definition.h. Bodies as in fixed_pool.h.
#pragma once

#include "../common/definition.h"
#include "fixed_pool.h"

namespace mmpool_ext::cuda::any {

template <class Rule_, class Tensors, typename index_t_>
struct Pool {
  using Rule = Rule_;
  using T = typename Tensors::wide_t;
  using scalar_t = typename Tensors::scalar_t;
  using weight_t = typename Tensors::weight_t;
  using grad_t = typename Tensors::grad_t;
  using index_t = index_t_;

  Tensors tensors;
  Rule* rules;  // in backward: what each window knows, laid out as the output is
  Strides input_strides, output_strides;
  Window<index_t> window;
  Grid grid;

  template <typename V>
  MMPOOL_HOST_DEVICE Plane<V, index_t> plane(V* tensor, const Strides& strides, const Place& at) const {
    return {tensor + at.n * strides.n + at.c * strides.c, static_cast<index_t>(strides.row), static_cast<index_t>(strides.column)};
  }
  MMPOOL_HOST_DEVICE Planes<scalar_t, weight_t, index_t, typename Tensors::Gates::gate_t> planes(const Place& at) const {
    return {
        plane(tensors.input, input_strides, at), plane(tensors.weight, Rule::kWeightPerWindow ? output_strides : input_strides, at),
        tensors.gates.at(at.n, at.c)};
  }
};

template <class P>
struct Forward {
  static constexpr int phases = 1;
  P pool;

  MMPOOL_HOST_DEVICE void first(uint32_t block, Thread thread, float*) const {
    Place at;
    if (!pool.grid.locate(block, thread, at)) return;
    const typename P::index_t row = at.row, column = at.column;
    const auto rule = measure<typename P::Rule, typename P::T>(pool.window, pool.planes(at), row, column);
    pool.plane(pool.tensors.output, pool.output_strides, at)(row, column) = static_cast<typename P::scalar_t>(rule.output());
  }
};

// One window a thread: what it knows, and the gradient of a weight that it has.
template <class P>
struct Measure {
  static constexpr int phases = 1;
  P pool;

  MMPOOL_HOST_DEVICE void first(uint32_t block, Thread thread, float*) const {
    Place at;
    if (!pool.grid.locate(block, thread, at)) return;
    const typename P::index_t row = at.row, column = at.column;
    const auto planes = pool.planes(at);
    const auto rule = measure<typename P::Rule, typename P::T>(pool.window, planes, row, column);
    pool.plane(pool.rules, pool.output_strides, at)(row, column) = rule;
    if constexpr (P::Rule::kWeightPerWindow) {
      const auto grad_output = pool.plane(pool.tensors.grad_output, pool.output_strides, at);
      const auto sum = gather_window<typename P::Rule, typename P::T>(pool.window, planes, grad_output, rule, row, column);
      pool.plane(pool.tensors.grad_weight, pool.output_strides, at)(row, column) = static_cast<typename P::grad_t>(sum);
    }
  }
};

// One pixel a thread.
template <class P>
struct Gather {
  static constexpr int phases = 1;
  P pool;

  MMPOOL_HOST_DEVICE void first(uint32_t block, Thread thread, float*) const {
    Place at;
    if (!pool.grid.locate(block, thread, at)) return;
    const typename P::index_t row = at.row, column = at.column;
    const auto grad_output = pool.plane(pool.tensors.grad_output, pool.output_strides, at);
    const auto rules = pool.plane(static_cast<const typename P::Rule*>(pool.rules), pool.output_strides, at);
    const auto sum = gather<typename P::Rule, typename P::T>(pool.window, pool.planes(at), grad_output, rules, row, column);
    pool.plane(pool.tensors.grad_input, pool.input_strides, at)(row, column) = static_cast<typename P::scalar_t>(sum.input);
    if constexpr (has_weight_per_pixel<typename P::Rule>())
      pool.plane(pool.tensors.grad_weight, pool.input_strides, at)(row, column) = static_cast<typename P::grad_t>(sum.weight);
  }
};

}  // namespace mmpool_ext::cuda::any
