// Loops over the channels of an image: moments, the instance normalisation and its gradient. A block is `rows` rows of `width` values, `step` apart;
// each of the `width` columns has numbers of its own. T is the arithmetic type. Nothing here depends on ATen.
#pragma once

#include "vector.h"

namespace mmpool_ext {
namespace {

// Mean and sum of squared deviations of each column; the mean as a difference to the first row, so that a constant has no deviation at all.
template <typename T, typename scalar_t>
MMPOOL_CLONES void block_moments(const scalar_t* data, int64_t rows, int64_t width, int64_t step, T* __restrict mean, T* __restrict squares) {
  for (int64_t i = 0; i < width; ++i) mean[i] = squares[i] = T(0);
  for (int64_t row = 0; row < rows; ++row) {
    const scalar_t* __restrict from = data + row * step;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < width; ++i) mean[i] += static_cast<T>(from[i]) - static_cast<T>(data[i]);
  }
  const T share = T(1) / static_cast<T>(rows);
  for (int64_t i = 0; i < width; ++i) mean[i] = static_cast<T>(data[i]) + mean[i] * share;
  for (int64_t row = 0; row < rows; ++row) {
    const scalar_t* __restrict from = data + row * step;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < width; ++i) {
      const T deviation = static_cast<T>(from[i]) - mean[i];
      squares[i] += deviation * deviation;
    }
  }
}

// max(0, (x - mean) * scale + bias); NaN stays.
template <typename T, typename scalar_t>
MMPOOL_CLONES void normalize_relu(
    const scalar_t* input, int64_t rows, int64_t width, int64_t step, const T* __restrict mean, const T* __restrict scale, const T* __restrict bias,
    scalar_t* output) {
  for (int64_t row = 0; row < rows; ++row) {
    const scalar_t* __restrict from = input + row * step;
    scalar_t* __restrict to = output + row * step;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < width; ++i) {
      const T y = (static_cast<T>(from[i]) - mean[i]) * scale[i] + bias[i];
      to[i] = static_cast<scalar_t>(y < T(0) ? T(0) : y);
    }
  }
}

// Add to the sums of each column: the gradient, and the gradient times x - mean. kRelu: the gradient where the normalized value is positive.
template <bool kRelu, typename T, typename grad_t, typename scalar_t>
MMPOOL_CLONES void block_sums(
    const grad_t* grad, const scalar_t* input, int64_t rows, int64_t width, int64_t step, const T* __restrict mean, const T* __restrict scale,
    const T* __restrict bias, T* __restrict sum, T* __restrict product) {
  for (int64_t row = 0; row < rows; ++row) {
    const grad_t* __restrict g = grad + row * step;
    const scalar_t* __restrict x = input + row * step;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < width; ++i) {
      const T centered = static_cast<T>(x[i]) - mean[i], given = static_cast<T>(g[i]);
      const T passed = kRelu && centered * scale[i] + bias[i] <= T(0) ? T(0) : given;
      sum[i] += passed;
      product[i] += passed * centered;
    }
  }
}

// scale * grad - constant - slope * (x - mean).
template <bool kRelu, typename T, typename grad_t, typename scalar_t>
MMPOOL_CLONES void spread_gradient(
    const grad_t* grad, const scalar_t* input, int64_t rows, int64_t width, int64_t step, const T* __restrict mean, const T* __restrict scale,
    const T* __restrict bias, const T* __restrict constant, const T* __restrict slope, scalar_t* grad_input) {
  for (int64_t row = 0; row < rows; ++row) {
    const grad_t* g = grad + row * step;  // may be grad_input
    const scalar_t* __restrict x = input + row * step;
    scalar_t* to = grad_input + row * step;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < width; ++i) {
      const T centered = static_cast<T>(x[i]) - mean[i], given = static_cast<T>(g[i]);
      const T passed = kRelu && centered * scale[i] + bias[i] <= T(0) ? T(0) : given;
      to[i] = static_cast<scalar_t>(scale[i] * passed - constant[i] - slope[i] * centered);
    }
  }
}

}  // namespace
}  // namespace mmpool_ext
