// Instance normalisation on the CPU, image by image: a contiguous image is taken as kLine columns, the pixels that lie kLine apart, which are put
// together at the end; channels_last has its channels side by side anyway.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../common/gate.h"
#include "channel_kernels.h"

namespace mmpool_ext {

// Means and sums of squared deviations of some channels, of all values so far; merged after Chan, Golub and LeVeque (1979). In double: there may be
// many merges.
struct Moments {
  double count = 0;
  std::vector<double> mean, squares;

  explicit Moments(int64_t channels) : mean(channels), squares(channels) {}

  // `other` values of each channel; mean_of(c) and squares_of(c) are theirs.
  template <typename F, typename G>
  void merge(double other, const F& mean_of, const G& squares_of) {
    const double total = count + other, share = other / total, weight = count * share;
    for (size_t c = 0; c < mean.size(); ++c) {
      const double delta = mean_of(c) - mean[c];
      mean[c] += delta * share;
      squares[c] += squares_of(c) + delta * delta * weight;
    }
    count = total;
  }
};

// Channels of one image that are worked on together: one in the contiguous format, some in channels_last.
struct ChannelBlock {
  static constexpr int64_t kLine = 64, kRows = 64;
  bool channels_last;
  int64_t channels, pixels, step;  // step: from pixel to pixel in channels_last

  // Call f(offset, rows, width, step) for pieces of at most kRows rows; the columns of a contiguous image are numbered anew in each.
  template <typename F>
  void pieces(const F& f) const {
    if (channels_last) {
      for (int64_t at = 0; at < pixels; at += kRows) f(at * step, std::min(kRows, pixels - at), channels, step);
      return;
    }
    const int64_t lines = pixels / kLine;
    for (int64_t at = 0; at < lines; at += kRows) f(at * kLine, std::min(kRows, lines - at), kLine, kLine);
    if (pixels % kLine) f(lines * kLine, 1, pixels % kLine, 0);
  }
  int64_t width() const { return channels_last ? channels : kLine; }
  int64_t channel(int64_t column) const { return channels_last ? column : 0; }

  template <typename T, typename scalar_t>
  Moments moments(const scalar_t* data) const {
    Moments result(channels);
    std::vector<T> mean(width()), squares(width());
    pieces([&](int64_t offset, int64_t rows, int64_t count, int64_t row) {
      block_moments<T>(data + offset, rows, count, row, mean.data(), squares.data());
      if (channels_last) {
        result.merge(static_cast<double>(rows), [&](size_t c) { return mean[c]; }, [&](size_t c) { return squares[c]; });
        return;
      }
      double center = 0, sum = 0;  // of columns of as many values each
      for (int64_t i = 0; i < count; ++i) center += mean[i];
      center /= count;
      for (int64_t i = 0; i < count; ++i) sum += squares[i] + rows * (mean[i] - center) * (mean[i] - center);
      result.merge(static_cast<double>(rows * count), [&](size_t) { return center; }, [&](size_t) { return sum; });
    });
    return result;
  }

  // A number of each channel for each column.
  template <typename T>
  std::vector<T> columns(const T* of_channels) const {
    std::vector<T> result(width());
    for (int64_t i = 0; i < width(); ++i) result[i] = of_channels[channel(i)];
    return result;
  }

  template <typename T, typename scalar_t>
  void normalize(const scalar_t* input, const T* mean, const T* scale, const T* bias, scalar_t* output) const {
    const auto means = columns(mean), scales = columns(scale), biases = columns(bias);
    pieces([&](int64_t offset, int64_t rows, int64_t count, int64_t row) {
      normalize_relu<T>(input + offset, rows, count, row, means.data(), scales.data(), biases.data(), output + offset);
    });
  }

  // The gradient of the normalisation's input, and for each channel the two sums that it needs: of the gradient, and of the gradient times the
  // normalized input before scale and bias.
  template <bool kRelu, typename T, typename grad_t, typename scalar_t>
  void gradient(
      const grad_t* grad, const scalar_t* input, const T* mean, const T* inverse_deviation, const T* scale, const T* bias, scalar_t* grad_input,
      T* sums, T* products) const {
    const auto means = columns(mean), scales = columns(scale), biases = columns(bias);
    std::vector<T> sum(width()), product(width());
    std::vector<double> total(2 * channels, 0.0);
    pieces([&](int64_t offset, int64_t rows, int64_t count, int64_t row) {
      std::fill(sum.begin(), sum.end(), T(0));
      std::fill(product.begin(), product.end(), T(0));
      block_sums<kRelu, T>(
          grad + offset, input + offset, rows, count, row, means.data(), scales.data(), biases.data(), sum.data(), product.data());
      for (int64_t i = 0; i < count; ++i) total[2 * channel(i)] += sum[i], total[2 * channel(i) + 1] += product[i];
    });
    std::vector<T> constant(channels), slope(channels);
    for (int64_t c = 0; c < channels; ++c) {
      sums[c] = static_cast<T>(total[2 * c]);
      products[c] = static_cast<T>(total[2 * c + 1] * inverse_deviation[c]);
      constant[c] = static_cast<T>(scale[c] * total[2 * c] / pixels);
      slope[c] = static_cast<T>(scale[c] * (total[2 * c + 1] * inverse_deviation[c]) * inverse_deviation[c] / pixels);
    }
    const auto constants = columns(constant.data()), slopes = columns(slope.data());
    pieces([&](int64_t offset, int64_t rows, int64_t count, int64_t row) {
      spread_gradient<kRelu, T>(
          grad + offset, input + offset, rows, count, row, means.data(), scales.data(), biases.data(), constants.data(), slopes.data(),
          grad_input + offset);
    });
  }
};

}  // namespace mmpool_ext
