// The two windows of practice, kernel 2 stride 2 padding 0 and kernel 3 stride 2 padding 1, on a GPU: every tensor is read and written once.
//
// A kernel is a body: a struct of pointers and sizes with one function, or two with a barrier between, of (block, thread, shared memory).
// It needs no GPU, so a test runs blocks and threads one after the other on the host. A thread has the neighbouring windows of
// fixed_lanes.h with all their cells in registers. Nothing is added up across threads: results are the same in every run.
#pragma once

#include "fixed_lanes.h"
#include "fixed_rules.h"
#include "grid.h"

namespace mmpool_ext::cuda {

// Gates make the weights of what the weight tensor holds; its gradient is then in the type of the arithmetic.
template <typename scalar_t_, typename weight_t_, class Gates_ = NoGates>
struct Tensors {
  using scalar_t = scalar_t_;
  using weight_t = weight_t_;
  using Gates = Gates_;
  using wide_t = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
  using grad_t = std::conditional_t<std::is_same_v<Gates, NoGates>, weight_t, wide_t>;

  const scalar_t* input;
  const weight_t* weight;
  scalar_t* output;
  const scalar_t* grad_output;
  scalar_t* grad_input;
  grad_t* grad_weight;
  Gates gates;
};

namespace fixed {

// The weight of a pixel: what the gate makes of the second tensor, or the input where there is none.
template <class Rule, class Gate>
MMPOOL_HOST_DEVICE float weight_of(float input, float held, const Gate& gate) {
  if constexpr (Rule::is_input) return input;
  return gate(held);
}

// The cells of one window: what a rule goes through.
template <class Rule, int K, class InputPatch, class WeightPatch, class Gate>
struct Cells {
  const InputPatch& inputs;
  const WeightPatch& weights;
  Gate gate;
  int lane;
  uint32_t present;  // bit i * K + j: the cell lies on the image

  template <class F>
  MMPOOL_HOST_DEVICE void each(const F& f) const {
    MMPOOL_UNROLL
    for (int i = 0; i < K; ++i) {
      MMPOOL_UNROLL
      for (int j = 0; j < K; ++j) {
        const float input = inputs.at(lane, i, j);
        const bool here = (present >> (i * K + j) & 1) != 0;
        f(input, weight_of<Rule>(here ? input : Rule::absent(), weights.at(lane, i, j), gate), here);
      }
    }
  }
};

// What forward and backward share.
template <class Rule, int K, class Lanes, class Tensors>
struct Pool {
  using scalar_t = typename Tensors::scalar_t;
  using weight_t = typename Tensors::weight_t;
  static constexpr int lanes = Lanes::lanes, padding = K - 2;
  using Values = typename Lanes::template Values<scalar_t>;
  using Parameters = typename Lanes::template Values<weight_t>;
  using InputPatch = typename Lanes::template Patch<scalar_t, K>;
  static constexpr bool weight_on_pixels = !Rule::per_window && !Rule::is_input;
  using WeightPatch = std::conditional_t<weight_on_pixels, typename Lanes::template Patch<weight_t, K>, Nothing>;
  using InputQuads = typename Lanes::template Quads<scalar_t>;
  using WeightQuads = std::conditional_t<weight_on_pixels, typename Lanes::template Quads<weight_t>, Nothing>;
  using WeightGrads = std::conditional_t<weight_on_pixels, typename Lanes::template Quads<typename Tensors::grad_t>, Nothing>;

  Tensors tensors;
  Strides input_strides, output_strides;
  int height, width, rows, columns;  // of input and of output
  Grid grid;

  template <typename T>
  MMPOOL_HOST_DEVICE Image<T> on_input(T* tensor, const Place& at) const {
    return {tensor + at.n * input_strides.n + at.c * input_strides.c, static_cast<int>(input_strides.row), static_cast<int>(input_strides.column),
            height, width};
  }
  template <typename T>
  MMPOOL_HOST_DEVICE Image<T> on_output(T* tensor, const Place& at) const {
    return {tensor + at.n * output_strides.n + at.c * output_strides.c, static_cast<int>(output_strides.row),
            static_cast<int>(output_strides.column), rows, columns};
  }
  MMPOOL_HOST_DEVICE bool has_window(const Place& at, int lane = 0) const {
    return at.row < rows && at.column + Lanes::columns_right(lane) < columns;
  }

  MMPOOL_HOST_DEVICE void load(const Place& at, InputPatch& inputs, WeightPatch& weights) const {
    inputs.load(on_input(tensors.input, at), 2 * at.row - padding, 2 * at.column - padding, 0.f);
    weights.load(on_input(tensors.weight, at), 2 * at.row - padding, 2 * at.column - padding, Rule::absent());
  }
  MMPOOL_HOST_DEVICE auto gate(const Place& at, int lane) const {
    return in_registers(tensors.gates.at(at.n, at.c + (Lanes::channels_last ? lane : 0)));
  }
  MMPOOL_HOST_DEVICE auto cells(const Place& at, const InputPatch& inputs, const WeightPatch& weights, int lane) const {
    uint32_t present = 0;
    MMPOOL_UNROLL
    for (int i = 0; i < K; ++i) {
      MMPOOL_UNROLL
      for (int j = 0; j < K; ++j) {
        const bool inside = within(height, 2 * at.row - padding + i) && within(width, 2 * (at.column + Lanes::columns_right(lane)) - padding + j);
        present |= static_cast<uint32_t>(inside) << (i * K + j);
      }
    }
    const auto of_lane = gate(at, lane);
    return Cells<Rule, K, InputPatch, WeightPatch, std::remove_const_t<decltype(of_lane)>>{inputs, weights, of_lane, lane, present};
  }
  // alpha, where windows have one
  MMPOOL_HOST_DEVICE Parameters parameters(const Place& at) const {
    if constexpr (Rule::per_window) return Lanes::load(on_output(tensors.weight, at), at.row, at.column);
    return Parameters::filled(0);
  }
};

template <class Rule, int K, class Lanes, class Tensors>
struct Forward {
  using P = Pool<Rule, K, Lanes, Tensors>;
  static constexpr int phases = 1;

  P pool;

  MMPOOL_HOST_DEVICE void first(uint32_t block, Thread thread, float*) const {
    Place at;
    if (!pool.grid.locate(block, thread, at)) return;
    typename P::InputPatch inputs;
    typename P::WeightPatch weights;
    pool.load(at, inputs, weights);
    const auto parameters = pool.parameters(at);
    typename P::Values output;
    MMPOOL_UNROLL
    for (int lane = 0; lane < P::lanes; ++lane)
      output.set(lane, Rule::forward(pool.cells(at, inputs, weights, lane), parameters[lane]));
    Lanes::store(pool.on_output(pool.tensors.output, at), at.row, at.column, output);
  }
};

// Windows that do not overlap: a thread has all that its pixels need.
template <class Rule, int K, class Lanes, class Tensors>
struct Backward {
  static_assert(K == 2);
  using P = Pool<Rule, K, Lanes, Tensors>;
  static constexpr int phases = 1;

  P pool;

  MMPOOL_HOST_DEVICE void first(uint32_t block, Thread thread, float*) const {
    Place at;
    if (!pool.grid.locate(block, thread, at)) return;
    const bool any_window = pool.has_window(at);
    typename P::InputPatch inputs;
    typename P::WeightPatch weights;
    pool.load(at, inputs, weights);
    auto grad_output = P::Values::filled(0);
    auto parameters = P::Parameters::filled(0);
    if (any_window) {
      grad_output = Lanes::load(pool.on_output(pool.tensors.grad_output, at), at.row, at.column);
      parameters = pool.parameters(at);
    }
    typename P::Parameters grad_parameters;
    typename P::InputQuads grad_inputs;
    typename P::WeightGrads grad_weights;
    MMPOOL_UNROLL
    for (int lane = 0; lane < P::lanes; ++lane) {
      float state[Rule::states];
      grad_parameters.set(lane, Rule::backward(pool.cells(at, inputs, weights, lane), parameters[lane], grad_output[lane], state));
      const bool any = pool.has_window(at, lane);
      const auto gate = pool.gate(at, lane);
      MMPOOL_UNROLL
      for (int i = 0; i < 2; ++i) {
        MMPOOL_UNROLL
        for (int j = 0; j < 2; ++j) {
          const float input = inputs.at(lane, i, j), held = weights.at(lane, i, j), weight = weight_of<Rule>(input, held, gate);
          float grad_input = 0, grad_weight = 0;
          if (any) Rule::add(state, input, weight, grad_input, grad_weight);  // beyond the last window even an infinite pixel counts for nothing
          Rule::finish(input, weight, grad_input, grad_weight);
          grad_inputs.set(lane, i, j, grad_input);
          grad_weights.set(lane, i, j, grad_weight * gate.slope(held));
        }
      }
    }
    grad_inputs.store(pool.on_input(pool.tensors.grad_input, at), at.row, at.column);
    grad_weights.store(pool.on_input(pool.tensors.grad_weight, at), at.row, at.column);
    if constexpr (Rule::per_window) {
      if (any_window) Lanes::store(pool.on_output(pool.tensors.grad_weight, at), at.row, at.column, grad_parameters);
    }
  }
};

// Windows that overlap by a row and a column: a block first brings what its windows and those next to them know into shared memory; then
// each thread gathers its pixels from up to four windows each.
template <class Rule, class Lanes, class Tensors>
struct Backward<Rule, 3, Lanes, Tensors> {
  using P = Pool<Rule, 3, Lanes, Tensors>;
  static constexpr int phases = 2;
  static constexpr int lanes = P::lanes;

  P pool;
  Halo halo;

  MMPOOL_HOST_DEVICE float* state_at(float* shared, int state, uint32_t slot) const { return shared + (state * halo.slots + slot) * lanes; }

  MMPOOL_HOST_DEVICE void first(uint32_t block, Thread thread, float* shared) const {
    for (uint32_t slot = pool.grid.rank(thread); slot < halo.slots; slot += pool.grid.threads()) {
      const Thread holder = halo.thread(slot);
      Place at;
      const bool any_window = pool.grid.locate(block, holder, at) && pool.has_window(at);
      typename P::InputPatch inputs;
      typename P::WeightPatch weights;
      auto grad_output = P::Values::filled(0);
      auto parameters = P::Parameters::filled(0);
      if (any_window) {
        pool.load(at, inputs, weights);
        grad_output = Lanes::load(pool.on_output(pool.tensors.grad_output, at), at.row, at.column);
        parameters = pool.parameters(at);
      }
      typename P::Parameters grad_parameters;
      Run<float, lanes> states[Rule::states];
      MMPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane) {
        float state[Rule::states];
        if (any_window)
          grad_parameters.set(lane, Rule::backward(pool.cells(at, inputs, weights, lane), parameters[lane], grad_output[lane], state));
        if (!any_window || !pool.has_window(at, lane)) Rule::neutral(state);
        MMPOOL_UNROLL
        for (int s = 0; s < Rule::states; ++s) states[s].set(lane, state[s]);
      }
      MMPOOL_UNROLL
      for (int s = 0; s < Rule::states; ++s) states[s].template store<true>(state_at(shared, s, slot), lanes);
      if constexpr (Rule::per_window) {
        if (any_window && pool.grid.owns(holder))
          Lanes::store(pool.on_output(pool.tensors.grad_weight, at), at.row, at.column, grad_parameters);
      }
    }
  }

  MMPOOL_HOST_DEVICE void second(uint32_t block, Thread thread, float* shared) const {
    Place at;
    if (!pool.grid.locate(block, thread, at)) return;
    typename P::InputQuads inputs;
    typename P::WeightQuads weights;
    typename P::WeightGrads grad_weights;
    inputs.load(pool.on_input(pool.tensors.input, at), at.row, at.column);
    weights.load(pool.on_input(pool.tensors.weight, at), at.row, at.column);
    const uint32_t slot = halo.slot(thread);
    Run<float, lanes> states[2][2][Rule::states];  // of the windows at (row, column) and one further down and right
    MMPOOL_UNROLL
    for (int i = 0; i < 2; ++i) {
      MMPOOL_UNROLL
      for (int j = 0; j < 2; ++j) {
        MMPOOL_UNROLL
        for (int s = 0; s < Rule::states; ++s) {
          if (Lanes::channels_last || j == 0)
            states[i][j][s].template load<true>(state_at(shared, s, slot + i * halo.next_row + j * halo.next_column), lanes);
          else
            states[i][j][s].template load<false>(state_at(shared, s, slot + i * halo.next_row) + j, lanes);
        }
      }
    }
    MMPOOL_UNROLL
    for (int lane = 0; lane < lanes; ++lane) {
      const auto gate = pool.gate(at, lane);
      MMPOOL_UNROLL
      for (int y = 0; y < 2; ++y) {
        MMPOOL_UNROLL
        for (int x = 0; x < 2; ++x) {
          const float input = inputs.at(lane, y, x), held = weights.at(lane, y, x), weight = weight_of<Rule>(input, held, gate);
          float grad_input = 0, grad_weight = 0;
          MMPOOL_UNROLL
          for (int i = 0; i <= y; ++i) {
            MMPOOL_UNROLL
            for (int j = 0; j <= x; ++j) {
              float state[Rule::states];
              MMPOOL_UNROLL
              for (int s = 0; s < Rule::states; ++s) state[s] = states[i][j][s][lane];
              Rule::add(state, input, weight, grad_input, grad_weight);
            }
          }
          Rule::finish(input, weight, grad_input, grad_weight);
          inputs.set(lane, y, x, grad_input);  // a pixel's place is free once it is read
          grad_weights.set(lane, y, x, grad_weight * gate.slope(held));
        }
      }
    }
    inputs.store(pool.on_input(pool.tensors.grad_input, at), at.row, at.column);
    grad_weights.store(pool.on_input(pool.tensors.grad_weight, at), at.row, at.column);
  }
};

}  // namespace fixed
}  // namespace mmpool_ext::cuda
