// The pooling of any window under any rule, one output or one pixel at a time, on host and device. Nothing here is fast on its own: it is
// the definition that the faster paths are tested against, and what runs where they do not apply.
#pragma once

#include "gate.h"
#include "rules.h"
#include "window.h"

namespace mmpool_ext {

// The tensors of one (n, c) plane: weight is logit or importance (per pixel) or alpha (per window), or what `gate` makes the logit of.
template <typename scalar_t, typename weight_t, typename index_t, class Gate = Identity>
struct Planes {
  Plane<const scalar_t, index_t> input;
  Plane<const weight_t, index_t> weight;
  Gate gate;

  template <typename T>
  MMPOOL_HOST_DEVICE T weight_at(index_t y, index_t x) const {
    return gate(static_cast<T>(weight(y, x)));
  }
};

// Learn what the window (oy, ox) knows about itself.
template <typename Rule, typename T, typename scalar_t, typename weight_t, typename index_t, class Gate>
MMPOOL_HOST_DEVICE Rule measure(const Window<index_t>& window, const Planes<scalar_t, weight_t, index_t, Gate>& planes, index_t oy, index_t ox) {
  const index_t top = window.y.first_tap(oy), bottom = window.y.end_tap(oy);
  const index_t left = window.x.first_tap(ox), right = window.x.end_tap(ox);
  Rule rule{-infinity<T>(), T(0), T(0)};
  const auto weight_of = [&](index_t y, index_t x) {
    return Rule::kWeightPerWindow ? planes.template weight_at<T>(oy, ox) : planes.template weight_at<T>(y, x);
  };
  for (index_t i = top; i < bottom; ++i) {
    for (index_t j = left; j < right; ++j) {
      const index_t y = window.y.pixel(oy, i), x = window.x.pixel(ox, j);
      const T key = Rule::key(static_cast<T>(planes.input(y, x)), weight_of(y, x));
      if (key > rule.pivot || key != key) rule.pivot = key;  // a NaN stays
    }
  }
  for (index_t i = top; i < bottom; ++i) {
    for (index_t j = left; j < right; ++j) {
      const index_t y = window.y.pixel(oy, i), x = window.x.pixel(ox, j);
      const T value = static_cast<T>(planes.input(y, x));
      const T weight = rule.weight(value, weight_of(y, x));
      rule.total += weight;
      rule.mean += weight * rule.value(value);
    }
  }
  rule.mean /= rule.total;
  return rule;
}

template <typename T>
struct Gradients {
  T input, weight;
};

// Gather the gradients of the pixel (y, x) from the windows that hold it; the weight's only where it is given per pixel. Behind a gate it is that
// of the normalized response.
template <typename Rule, typename T, typename scalar_t, typename weight_t, typename index_t, class Gate>
MMPOOL_HOST_DEVICE Gradients<T> gather(
    const Window<index_t>& window, const Planes<scalar_t, weight_t, index_t, Gate>& planes, const Plane<const scalar_t, index_t>& grad_output,
    const Plane<const Rule, index_t>& rules, index_t y, index_t x) {
  const T value = static_cast<T>(planes.input(y, x));
  Gradients<T> sum{T(0), T(0)};
  for (index_t oy = window.y.first_window(y); oy < window.y.end_window(y); ++oy) {
    if (!window.y.holds(oy, y)) continue;
    for (index_t ox = window.x.first_window(x); ox < window.x.end_window(x); ++ox) {
      if (!window.x.holds(ox, x)) continue;
      const T grad = static_cast<T>(grad_output(oy, ox));
      const T weight = Rule::kWeightPerWindow ? planes.template weight_at<T>(oy, ox) : planes.template weight_at<T>(y, x);
      const Rule rule = rules(oy, ox);
      sum.input += grad * rule.grad_input(value, weight);
      if constexpr (has_weight_per_pixel<Rule>()) sum.weight += grad * rule.grad_weight(value, weight);
    }
  }
  if constexpr (has_weight_per_pixel<Rule>()) sum.weight *= planes.gate.slope(static_cast<T>(planes.weight(y, x)));
  return sum;
}

// Gradient of a weight that is given per window.
template <typename Rule, typename T, typename scalar_t, typename weight_t, typename index_t>
MMPOOL_HOST_DEVICE T gather_window(
    const Window<index_t>& window, const Planes<scalar_t, weight_t, index_t>& planes, const Plane<const scalar_t, index_t>& grad_output,
    const Rule& rule, index_t oy, index_t ox) {
  const T weight = static_cast<T>(planes.weight(oy, ox));
  T sum = T(0);
  for (index_t i = window.y.first_tap(oy); i < window.y.end_tap(oy); ++i) {
    for (index_t j = window.x.first_tap(ox); j < window.x.end_tap(ox); ++j) {
      sum += rule.grad_weight(static_cast<T>(planes.input(window.y.pixel(oy, i), window.x.pixel(ox, j))), weight);
    }
  }
  return static_cast<T>(grad_output(oy, ox)) * sum;
}

}  // namespace mmpool_ext
