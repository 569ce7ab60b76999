// What sets the poolings apart: how a cell weighs in its window. T is the type of all arithmetic, float or double.
//
// A rule is what a window knows about itself: pivot (the largest key of its cells), total (the sum of the weights) and mean (the weighted
// mean of the values). x is the cell's input, f the cell's logit or importance, or the window's alpha. With kWeightIsInput there is no second tensor:
// f is x, and grad_input is the whole gradient.
#pragma once

#include <cmath>
#include <limits>

#include "window.h"

namespace mmpool_ext {

// Whether there is a gradient by a weight that lies on the pixels.
template <class Rule>
constexpr bool has_weight_per_pixel() {
  return !Rule::kWeightPerWindow && !Rule::kWeightIsInput;
}

template <typename T>
MMPOOL_HOST_DEVICE T infinity() {
  return std::numeric_limits<T>::infinity();
}

// Eq. 5 of the LIP paper: f is the logit. A window whose logits are all -inf is the plain mean.
template <typename T>
struct Lip {
  static constexpr bool kWeightPerWindow = false, kWeightIsInput = false;
  T pivot, total, mean;

  static MMPOOL_HOST_DEVICE T key(T /*x*/, T f) { return f; }
  MMPOOL_HOST_DEVICE T weight(T /*x*/, T f) const { return pivot == -infinity<T>() ? T(1) : std::exp(f - pivot); }
  MMPOOL_HOST_DEVICE T value(T x) const { return x; }
  MMPOOL_HOST_DEVICE T output() const { return mean; }
  MMPOOL_HOST_DEVICE T grad_input(T x, T f) const { return weight(x, f) / total; }
  MMPOOL_HOST_DEVICE T grad_weight(T x, T f) const { return pivot == -infinity<T>() ? T(0) : weight(x, f) / total * (x - mean); }
};

// SoftPool: LIP whose logit is the input itself.
template <typename T>
struct Soft : Lip<T> {
  static constexpr bool kWeightIsInput = true;
  MMPOOL_HOST_DEVICE T grad_input(T x, T f) const { return this->weight(x, f) / this->total * (T(1) + x - this->mean); }
};

// Eq. 1 of the LIP paper: f is the importance. A window without any is the plain mean.
template <typename T>
struct Lan {
  static constexpr bool kWeightPerWindow = false, kWeightIsInput = false;
  T pivot, total, mean;

  static MMPOOL_HOST_DEVICE T key(T /*x*/, T f) { return f; }
  MMPOOL_HOST_DEVICE T weight(T /*x*/, T f) const { return pivot == T(0) ? T(1) : f / pivot; }
  MMPOOL_HOST_DEVICE T value(T x) const { return x; }
  MMPOOL_HOST_DEVICE T output() const { return mean; }
  MMPOOL_HOST_DEVICE T grad_input(T x, T f) const { return weight(x, f) / total; }
  MMPOOL_HOST_DEVICE T grad_weight(T x, T /*f*/) const { return pivot == T(0) ? T(0) : (x - mean) / total / pivot; }
};

// Eq. 1 of the P-pooling paper: f is alpha, values are ratios to the window's largest pixel, and mean is in units of it.
// An all-zero window has ratios of 1. Pixels below zero count as zero.
template <typename T>
struct Polynomial {
  static constexpr bool kWeightPerWindow = true, kWeightIsInput = false;
  T pivot, total, mean;

  static MMPOOL_HOST_DEVICE T key(T x, T /*f*/) { return x < T(0) ? T(0) : x; }
  static MMPOOL_HOST_DEVICE T power(T ratio, T exponent) {
    return ratio == T(0) ? T(exponent == T(0)) : std::exp2(exponent * std::log2(ratio));
  }
  MMPOOL_HOST_DEVICE T value(T x) const { return pivot == T(0) ? T(1) : key(x, T(0)) / pivot; }
  MMPOOL_HOST_DEVICE T weight(T x, T f) const { return power(value(x), f); }
  MMPOOL_HOST_DEVICE T output() const { return pivot * mean; }
  MMPOOL_HOST_DEVICE T grad_input(T x, T f) const {
    if (x < T(0)) return T(0);
    const T ratio = value(x), floor = T(1e-6);  // for 0 < alpha < 1 the slope at zero is infinite
    const T slope = power(f < T(1) && ratio < floor ? floor : ratio, f - T(1));
    return (power(ratio, f) * (T(1) + f) - f * mean * slope) / total;
  }
  MMPOOL_HOST_DEVICE T grad_weight(T x, T f) const {
    const T ratio = value(x);
    return ratio == T(0) ? T(0) : pivot * (power(ratio, f) / total) * (ratio - mean) * std::log(ratio);
  }
};

}  // namespace mmpool_ext
