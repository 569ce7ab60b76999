// The order of work on a tile, row of windows by row of windows, that the fast methods share; all in float32. Input rows are prepared once
// and kept while windows need them; a window that the method is not sure of is done again by the definition in common/pool.h.
// Nothing here depends on ATen.
#pragma once

#include <array>
#include <cmath>

#include "../common/pool.h"
#include "strip.h"

namespace mmpool_ext {

// An input row as the method prepares it: parts are buffers of strip.length floats, the last ones the gradients to be.
struct Row {
  std::array<float*, 4> parts;
  int64_t y;
  double level;
};

// What a method works on for one row of windows. Lanes that are no window hold 0 in grad_output and 1 in guard.
struct Windows {
  const Strip& strip;
  std::vector<Row*> rows;          // the input rows under the windows
  std::vector<float> factors;      // the method's, one a row
  float *weight, *grad_weight;     // of the windows, where the rule has a weight per window
  float* grad_output;
  float *totals, *means, *guard;   // a window whose total is not above kTiny is done again
  float* staged;                   // the weights of an input row as they were loaded; -inf outside the image
  float *first, *second;           // buffers of strip.length floats, free for use
};

constexpr float kTiny = 1e-25f;

// Method: Rule; kParts, kGradients of a row (the gradients of input and, per pixel, weight come last); prepare, pool, spread, finish.
template <typename Method, typename scalar_t, typename weight_t>
class TilePool {
  using Rule = typename Method::Rule;
  static constexpr bool kPerWindow = Rule::kWeightPerWindow;

 public:
  TilePool(const Window<int64_t>& window, const Strip& strip, bool backward)
      : method_(window, strip), window_(window), strip_(strip), rows_(window.y.dilation * (window.y.kernel - 1) + 1), windows_{strip, {}, {}, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr}, backward_(backward) {
    const int64_t parts = Method::kParts + (backward_ ? Method::kGradients : 0), outputs = strip.outputs();
    memory_.assign((static_cast<int64_t>(rows_.size()) * parts + 3) * strip.length + 6 * outputs, 0.0f);
    float* next = memory_.data();
    const auto take = [&next](int64_t count) { return (next += count) - count; };
    for (Row& row : rows_) {
      for (int64_t part = 0; part < parts; ++part) row.parts[part] = take(strip.length);
    }
    windows_.staged = take(strip.length), windows_.first = take(strip.length), windows_.second = take(strip.length);
    windows_.weight = take(outputs), windows_.grad_weight = take(outputs), windows_.grad_output = take(outputs);
    windows_.totals = take(outputs), windows_.means = take(outputs), windows_.guard = take(outputs);
    fill(strip.empty, windows_.staged, -infinity<float>());
    windows_.factors.resize(window.y.kernel);
    std::fill_n(windows_.guard, outputs, 1.0f);
    for (int64_t ox = 0; ox < window.x.output; ++ox) {
      for (int64_t unit = 0; unit < strip.units; ++unit) windows_.guard[strip.output_offset(ox, unit)] = 0.0f;
    }
  }

  // Pool the output rows [begin, end).
  void forward(const Tile<const scalar_t>& input, const Tile<const weight_t>& weight, const Tile<scalar_t>& output, int64_t begin, int64_t end) {
    for (Row& row : rows_) row.y = -1;
    for (int64_t oy = begin; oy < end; ++oy) {
      const bool good = pool(input, weight, oy);
      store_output(strip_, windows_.means, output, oy);
      if (good) continue;
      for_each_bad([&](int64_t ox, int64_t unit) {
        const Planes<scalar_t, weight_t, int64_t> planes{input.plane(unit), weight.plane(unit)};
        output.plane(unit)(oy, ox) = static_cast<scalar_t>(measure<Rule, float>(window_, planes, oy, ox).output());
      });
    }
  }

  // Gather the gradients of the input rows [begin, end), and of the windows that start in them where the weight is given per window.
  void backward(
      const Tile<const scalar_t>& grad_output, const Tile<const scalar_t>& input, const Tile<const weight_t>& weight,
      const Tile<scalar_t>& grad_input, const Tile<weight_t>& grad_weight, int64_t begin, int64_t end) {
    for (Row& row : rows_) row.y = -1;
    bad_.clear();
    int64_t done = begin;
    const int64_t last = window_.y.end_window(end - 1);
    for (int64_t oy = window_.y.first_window(begin); oy < last; ++oy) {
      const int64_t start = window_.y.start(oy);
      for (const int64_t before = std::min(end, start); done < before; ++done) finish(done, grad_input, grad_weight);
      const bool good = pool(input, weight, oy);
      load_output(strip_, grad_output, oy, windows_.grad_output);
      if (!good) for_each_bad([&](int64_t ox, int64_t unit) { bad_.push_back({oy, ox, unit}); });
      method_.spread(windows_);
      if constexpr (kPerWindow) {
        if (std::max<int64_t>(start, 0) >= begin) store_output(strip_, windows_.grad_weight, grad_weight, oy);
      }
    }
    for (; done < end; ++done) finish(done, grad_input, grad_weight);
    for (const Bad& bad : bad_) add(bad, grad_output, input, weight, grad_input, grad_weight, begin, end);
  }

 private:
  struct Bad {
    int64_t oy, ox, unit;
  };

  bool pool(const Tile<const scalar_t>& input, const Tile<const weight_t>& weight, int64_t oy) {
    windows_.rows.clear();
    for (int64_t tap = window_.y.first_tap(oy); tap < window_.y.end_tap(oy); ++tap) {
      const int64_t y = window_.y.pixel(oy, tap);
      Row& row = rows_[y % static_cast<int64_t>(rows_.size())];
      if (row.y != y) {
        row.y = y;
        load(strip_, input, y, row.parts[0]);
        fill(strip_.unseen, row.parts[0], 0.0f);  // an infinity there would spoil idle lanes
        if constexpr (!kPerWindow) load(strip_, weight, y, windows_.staged);
        method_.prepare(windows_, row);
        if (backward_) {
          for (int part = Method::kParts; part < Method::kParts + Method::kGradients; ++part) std::fill_n(row.parts[part], strip_.length, 0.0f);
        }
      }
      windows_.rows.push_back(&row);
    }
    if constexpr (kPerWindow) load_output(strip_, weight, oy, windows_.weight);
    return method_.pool(windows_);
  }

  void finish(int64_t y, const Tile<scalar_t>& grad_input, const Tile<weight_t>& grad_weight) {
    const Row& row = rows_[y % static_cast<int64_t>(rows_.size())];
    float* const* gradients = row.parts.data() + Method::kParts;
    if (row.y == y) {
      method_.finish(strip_, row);
    } else {  // no window holds this row
      std::fill_n(windows_.first, strip_.length, 0.0f);
      gradients = nullptr;
    }
    store(strip_, gradients ? gradients[0] : windows_.first, grad_input, y);
    if constexpr (!kPerWindow) store(strip_, gradients ? gradients[1] : windows_.first, grad_weight, y);
  }

  // Add a window's gradients by the definition.
  void add(
      const Bad& bad, const Tile<const scalar_t>& grad_output, const Tile<const scalar_t>& input, const Tile<const weight_t>& weight,
      const Tile<scalar_t>& grad_input, const Tile<weight_t>& grad_weight, int64_t begin, int64_t end) const {
    const Planes<scalar_t, weight_t, int64_t> planes{input.plane(bad.unit), weight.plane(bad.unit)};
    const auto grads = grad_output.plane(bad.unit);
    const Rule rule = measure<Rule, float>(window_, planes, bad.oy, bad.ox);
    const float grad = static_cast<float>(grads(bad.oy, bad.ox));
    for (int64_t i = window_.y.first_tap(bad.oy); i < window_.y.end_tap(bad.oy); ++i) {
      for (int64_t j = window_.x.first_tap(bad.ox); j < window_.x.end_tap(bad.ox); ++j) {
        const int64_t y = window_.y.pixel(bad.oy, i), x = window_.x.pixel(bad.ox, j);
        if (y < begin || y >= end) continue;
        const float value = static_cast<float>(planes.input(y, x));
        const float f = static_cast<float>(kPerWindow ? planes.weight(bad.oy, bad.ox) : planes.weight(y, x));
        scalar_t& to_input = grad_input.plane(bad.unit)(y, x);
        to_input = static_cast<scalar_t>(static_cast<float>(to_input) + grad * rule.grad_input(value, f));
        if constexpr (!kPerWindow) {
          weight_t& to_weight = grad_weight.plane(bad.unit)(y, x);
          to_weight = static_cast<weight_t>(static_cast<float>(to_weight) + grad * rule.grad_weight(value, f));
        }
      }
    }
    if constexpr (kPerWindow) {
      if (std::max<int64_t>(window_.y.start(bad.oy), 0) >= begin) {
        grad_weight.plane(bad.unit)(bad.oy, bad.ox) = static_cast<weight_t>(gather_window<Rule, float>(window_, planes, grads, rule, bad.oy, bad.ox));
      }
    }
  }

  template <typename F>
  void for_each_bad(const F& f) const {
    for (int64_t ox = 0; ox < window_.x.output; ++ox) {
      for (int64_t unit = 0; unit < strip_.units; ++unit) {
        if (!(windows_.totals[strip_.output_offset(ox, unit)] > kTiny)) f(ox, unit);
      }
    }
  }

  Method method_;
  const Window<int64_t> window_;
  const Strip& strip_;
  std::vector<Row> rows_;
  Windows windows_;
  const bool backward_;
  std::vector<float> memory_;
  std::vector<Bad> bad_;
};

}  // namespace mmpool_ext
