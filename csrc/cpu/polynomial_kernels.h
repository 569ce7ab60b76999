// The loops of polynomial_tile.h. Nothing here depends on ATen.
#pragma once

#include "tile.h"

namespace mmpool_ext {
namespace {

constexpr float kZeroLog = -1e30f;             // the logarithm of 0: any alpha > 1e-20 makes nothing of it, and alpha = 0 makes 1
constexpr float kLeastLog = -19.9315686f;      // ratios below 1e-6 count as that where the slope at 0 is infinite
constexpr float kLn2 = 0.69314718f;
constexpr float kOutside = -2.0f;              // in place of a pixel; its ratio is below 0, also in an all-zero window, where 1 is added to it

// A cell of `rows` lines of windows: pixels clamped to 0. kStride = 0: any stride, and windows of `interleaved` floats.
template <int kStride>
MMPOOL_CLONES void take_cells(
    const float* input, int64_t line, int64_t stride, float* cells, int64_t pitch, int64_t rows, int64_t count, int64_t interleaved) {
  for (int64_t row = 0; row < rows; ++row, input += line, cells += pitch) {
    if constexpr (kStride > 0) {
      const float* __restrict from = input;
      float* __restrict to = cells;
      MMPOOL_INDEPENDENT
      for (int64_t i = 0; i < count; ++i) {
        const float x = from[kStride * i];
        to[i] = x < 0.0f ? 0.0f : x;
      }
    } else {
      for (int64_t cell = 0; cell < count; ++cell) {
        const float* __restrict from = input + cell * stride * interleaved;
        float* __restrict to = cells + cell * interleaved;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < interleaved; ++i) {
          const float x = from[i];
          to[i] = x < 0.0f ? 0.0f : x;
        }
      }
    }
  }
}

// The same for two neighbouring cells of windows that are two pixels apart.
MMPOOL_CLONES void take_pairs(const float* input, int64_t line, float* first, float* second, int64_t pitch, int64_t rows, int64_t count) {
  for (int64_t row = 0; row < rows; ++row, input += line, first += pitch, second += pitch) {
    const float* __restrict from = input;
    float* __restrict even = first;
    float* __restrict odd = second;
    const int64_t wide = stretched(count, pitch == count ? (rows - row) * count : 0);
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < wide; ++i) {
      const float a = from[2 * i], b = from[2 * i + 1];
      even[i] = a < 0.0f ? 0.0f : a;
      odd[i] = b < 0.0f ? 0.0f : b;
    }
  }
}

// The reverse: add the cells to the pixels.
template <int kStride>
MMPOOL_CLONES void add_cells(
    const float* cells, int64_t pitch, float* pixels, int64_t line, int64_t stride, int64_t rows, int64_t count, int64_t interleaved) {
  for (int64_t row = 0; row < rows; ++row, cells += pitch, pixels += line) {
    if constexpr (kStride > 0) {
      const float* __restrict from = cells;
      float* __restrict to = pixels;
      MMPOOL_INDEPENDENT
      for (int64_t i = 0; i < count; ++i) to[kStride * i] += from[i];
    } else {
      for (int64_t cell = 0; cell < count; ++cell) {
        const float* __restrict from = cells + cell * interleaved;
        float* __restrict to = pixels + cell * stride * interleaved;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < interleaved; ++i) to[i] += from[i];
      }
    }
  }
}

// And of take_pairs.
MMPOOL_CLONES void add_pairs(const float* first, const float* second, int64_t pitch, float* pixels, int64_t line, int64_t rows, int64_t count) {
  for (int64_t row = 0; row < rows; ++row, first += pitch, second += pitch, pixels += line) {
    const float* __restrict even = first;
    const float* __restrict odd = second;
    float* __restrict to = pixels;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) {
      to[2 * i] += even[i];
      to[2 * i + 1] += odd[i];
    }
  }
}

MMPOOL_CLONES void raise_top(const float* __restrict cells, float* __restrict top, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) top[i] = top[i] < cells[i] ? cells[i] : top[i];
}

// The same, and leave the smaller of both in the cell.
MMPOOL_CLONES void swap_top(float* __restrict cells, float* __restrict top, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float a = top[i], b = cells[i];
    top[i] = a < b ? b : a;
    cells[i] = a < b ? a : b;
  }
}

// 1 / top; an all-zero window has ratios of 1, `floor`.
MMPOOL_CLONES void invert_top(const float* __restrict top, float* __restrict inverse, float* __restrict floor, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    inverse[i] = 1.0f / (top[i] > 0.0f ? top[i] : 1.0f);
    floor[i] = top[i] > 0.0f ? 0.0f : 1.0f;
  }
}

inline float log_ratio(float ratio) { return ratio <= 0.0f ? kZeroLog : log2_normal(ratio); }

// The weight of a pixel x: 0 outside the image, NaN where the logarithm of its ratio is wrong.
inline float weight_of(float x, float ratio, float power) {
  const bool denormal = static_cast<uint32_t>(as_bits(ratio)) - 1u < 0x007FFFFFu;
  return denormal ? __builtin_nanf("") : x < 0.0f ? 0.0f : power;
}

// Whether a window's sums are right.
inline bool is_trusted(float alpha, float top, float total, float mean) {
  const bool exponent = (alpha == 0.0f) | ((alpha >= 1e-20f) & (alpha <= 1e30f)), values = (top >= 0.0f) & (top <= 1e30f);
  return exponent & values & (total > kTiny) & (mean >= 0.0f) & (mean <= 2.0f);  // a NaN among the pixels is in the mean
}

// Add the weights ratio ** alpha and the weighted ratios.
MMPOOL_CLONES void add_power(
    const float* __restrict cells, const float* __restrict inverse, const float* __restrict alpha, int64_t count, float* __restrict total,
    float* __restrict sum) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float ratio = cells[i] * inverse[i], weight = weight_of(cells[i], ratio, exp2_bounded(alpha[i] * log_ratio(ratio)));
    total[i] += weight;
    sum[i] += weight * ratio;
  }
}

// ratio ** (alpha - 1); its largest value where alpha < 1, as if no ratio were below 1e-6; and ratio ** alpha from it.
inline float slope_of(float log, float alpha) {
  const float least = log < -126.0f ? -126.0f : log;
  return exp2_bounded((alpha - 1.0f) * (alpha < 1.0f ? least : log));
}

inline float steepest(float alpha) { return exp2_bounded(alpha < 1.0f ? (alpha - 1.0f) * kLeastLog : 126.0f); }

inline float power_of(float ratio, float slope, float log, float alpha) {
  const float power = ratio * slope, at_zero = alpha == 0.0f ? 1.0f : 0.0f;
  return log > -1e29f ? power : at_zero;
}

// The same, and keep the logarithms of the ratios and their powers one below.
MMPOOL_CLONES void add_slope(
    const float* __restrict cells, const float* __restrict inverse, const float* __restrict floor, const float* __restrict alpha, int64_t count,
    float* __restrict total, float* __restrict sum, float* __restrict slopes, float* __restrict logs) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float ratio = cells[i] * inverse[i] + floor[i], a = alpha[i], log = log_ratio(ratio);
    const float slope = slope_of(log, a), weight = weight_of(cells[i], ratio, power_of(ratio, slope, log, a));
    total[i] += weight;
    sum[i] += weight * ratio;
    slopes[i] = slope;
    logs[i] = log;
  }
}

// Sums to means in units of the largest pixel, and outputs; a total of 0 says that the window is to be done again, and so does the result.
MMPOOL_CLONES int32_t divide_windows(
    const float* __restrict alpha, const float* __restrict top, float* __restrict totals, float* __restrict means, float* __restrict output, int64_t count) {
  int32_t bad = 0;
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float total = totals[i], mean = means[i] / total;
    const bool trusted = is_trusted(alpha[i], top[i], total, mean);
    means[i] = mean;
    output[i] = mean * top[i];
    totals[i] = trusted ? total : 0.0f;
    bad |= trusted ? 0 : 1;
  }
  return bad;
}

// The output gradient over the total, 0 where the window is done again elsewhere. Both may be the same buffer.
MMPOOL_CLONES void share_gradients(const float* __restrict totals, const float* grad_output, float* shares, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float share = grad_output[i] / totals[i];
    shares[i] = totals[i] > kTiny ? share : 0.0f;
  }
}

MMPOOL_CLONES void bound_slopes(const float* __restrict alpha, float* __restrict most, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) most[i] = steepest(alpha[i]);
}

// From a cell's slope and logarithm to its gradient, in place of the cell, and its part of alpha's, in units of the window's largest pixel.
MMPOOL_CLONES void spread_power(
    float* __restrict cells, const float* __restrict inverse, const float* __restrict floor, const float* __restrict alpha,
    const float* __restrict means, const float* __restrict shares, const float* __restrict most, const float* __restrict logs,
    const float* __restrict slopes, int64_t count, float* __restrict grad_alpha) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float x = cells[i], ratio = x * inverse[i] + floor[i], a = alpha[i], mean = means[i], share = shares[i], log = logs[i];
    const float weight = power_of(ratio, slopes[i], log, a), slope = slopes[i] < most[i] ? slopes[i] : most[i];
    const float grad = share * (weight * (1.0f + a) - a * mean * slope);
    const float by_log = share * weight * (ratio - mean) * log;
    const bool none = (share == 0.0f) | (x < 0.0f);
    cells[i] = none ? 0.0f : grad;
    grad_alpha[i] += none | (log < -1e29f) ? 0.0f : by_log;
  }
}

// All of that for windows of kCells pixels, which the registers hold, in short steps over kFetch windows, so that several of them are under way at
// once. The largest pixel of a window comes first, whose ratio, weight and slope are 1, and whose logarithm is 0.
//
// The ratios of the others, in rows of kFetch, in an order of their own; below 0 outside the image.
template <int kCells>
MMPOOL_CLONES void rank_cells(const float* __restrict cells, int64_t pitch, int64_t count, float* __restrict ratios, float* __restrict top) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    float x[kCells], most = cells[i];
    for (int j = 1; j < kCells; ++j) {
      const float a = most, b = cells[j * pitch + i];
      most = a < b ? b : a;
      x[j] = a < b ? a : b;
    }
    const float inverse = 1.0f / (most > 0.0f ? most : 1.0f), floor = most > 0.0f ? 0.0f : 1.0f;
    for (int j = 1; j < kCells; ++j) ratios[(j - 1) * kFetch + i] = x[j] * inverse + floor;
    top[i] = most;
  }
}

// Where every alpha is within these bounds, no slope is above 1, and a ratio too small for the logarithm weighs nothing, as what is outside the image:
// no case needs to be told from the others.
constexpr float kSteep = 2.0f, kSteepest = 1e6f;
constexpr float kLeastRatio = 1.17549435e-38f;

MMPOOL_CLONES bool all_steep(const float* __restrict alpha, int64_t count) {
  int32_t others = 0;
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) others |= (alpha[i] >= kSteep) & (alpha[i] <= kSteepest) ? 0 : 1;
  return others == 0;
}

template <bool kAllSteep>
MMPOOL_CLONES void weigh(const float* __restrict ratios, const float* __restrict alpha, int64_t rows, int64_t count, float* __restrict weights) {
  for (int64_t at = 0; at < rows * kFetch; at += kFetch) {
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) {
      const float ratio = ratios[at + i], a = alpha[i];
      if constexpr (kAllSteep) {
        weights[at + i] = exp2_bounded(a * log2_normal(ratio < kLeastRatio ? kLeastRatio : ratio));
      } else {
        weights[at + i] = weight_of(ratio, ratio, exp2_bounded(a * log_ratio(ratio)));
      }
    }
  }
}

// And the logarithms and the slopes, these bounded, all of them 0 where they do not count.
template <bool kAllSteep>
MMPOOL_CLONES void weigh_and_slope(
    const float* __restrict ratios, const float* __restrict alpha, int64_t rows, int64_t count, float* __restrict weights, float* __restrict logs,
    float* __restrict slopes) {
  for (int64_t at = 0; at < rows * kFetch; at += kFetch) {
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) {
      const float ratio = ratios[at + i], a = alpha[i];
      if constexpr (kAllSteep) {
        const float log = log2_normal(ratio < kLeastRatio ? kLeastRatio : ratio), slope = exp2_bounded((a - 1.0f) * log);
        weights[at + i] = slope * ratio;
        logs[at + i] = log;
        slopes[at + i] = slope;
      } else {
        const float log = log_ratio(ratio), slope = slope_of(log, a), most = steepest(a);
        weights[at + i] = weight_of(ratio, ratio, power_of(ratio, slope, log, a));
        logs[at + i] = log < -1e29f ? 0.0f : log;
        slopes[at + i] = ratio < 0.0f ? 0.0f : slope < most ? slope : most;
      }
    }
  }
}

template <int kCells>
MMPOOL_CLONES int32_t average_cells(
    const float* __restrict ratios, const float* __restrict weights, const float* __restrict alpha, const float* __restrict top, int64_t count,
    float* __restrict totals, float* __restrict output) {
  int32_t bad = 0;
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    float total = 1.0f, sum = 1.0f;
    for (int j = 0; j < kCells - 1; ++j) {
      total += weights[j * kFetch + i];
      sum += weights[j * kFetch + i] * ratios[j * kFetch + i];
    }
    const float mean = sum / total;
    const bool trusted = is_trusted(alpha[i], top[i], total, mean);
    output[i] = mean * top[i];
    totals[i] = trusted ? total : 0.0f;
    bad |= trusted ? 0 : 1;
  }
  return bad;
}

// The gradients of the pixels in place of the cells, and alpha's.
template <int kCells>
MMPOOL_CLONES int32_t spread_cells(
    float* __restrict cells, int64_t pitch, const float* __restrict ratios, const float* __restrict weights, const float* __restrict logs,
    const float* __restrict slopes, const float* __restrict alpha, const float* __restrict grad_output, int64_t count, float* __restrict totals,
    float* __restrict grad_alpha) {
  int32_t bad = 0;
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    float most[kCells], top = cells[i], total = 1.0f, sum = 1.0f;
    for (int j = 1; j < kCells; ++j) {
      const float x = cells[j * pitch + i], weight = weights[(j - 1) * kFetch + i];
      most[j] = top;
      top = top < x ? x : top;
      total += weight;
      sum += weight * ratios[(j - 1) * kFetch + i];
    }
    const float inverse = 1.0f / total, mean = sum * inverse, a = alpha[i];
    const bool trusted = is_trusted(a, top, total, mean);
    const float share = grad_output[i] * inverse, gain = 1.0f + a, loss = a * mean;
    float by_alpha = 0.0f, of_top = share * (gain - loss);
    for (int j = kCells - 1; j > 0; --j) {  // undo the ranking, the last step first
      const int64_t at = (j - 1) * kFetch + i;
      const float of_other = share * (gain * weights[at] - loss * slopes[at]);
      const bool swapped = most[j] < cells[j * pitch + i];
      const float grad = swapped ? of_top : of_other;
      of_top = swapped ? of_other : of_top;
      cells[j * pitch + i] = trusted ? grad : 0.0f;
      by_alpha += weights[at] * logs[at] * (ratios[at] - mean);
    }
    cells[i] = trusted ? of_top : 0.0f;
    grad_alpha[i] = trusted ? kLn2 * top * share * by_alpha : 0.0f;
    totals[i] = trusted ? total : 0.0f;
    bad |= trusted ? 0 : 1;
  }
  return bad;
}

MMPOOL_CLONES void scale_windows(const float* __restrict top, float* __restrict grad_alpha, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) grad_alpha[i] *= kLn2 * top[i];
}

// Gradients of a run of pixels; one below zero counts as zero and has none.
template <typename scalar_t>
MMPOOL_CLONES void store_gradients(const float* input, const float* grad, const Runs& runs, scalar_t* target) {
  for (int64_t run = 0; run < runs.count; ++run) {
    const float* __restrict x = input + run * runs.length;
    const float* __restrict from = grad + run * runs.length;
    scalar_t* __restrict to = target + run * runs.step;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < runs.length; ++i) to[i] = static_cast<scalar_t>(x[i] < 0.0f ? 0.0f : from[i]);
  }
}

// The gradients of the rows [begin, end) of a plane that its 2x2 windows share out among themselves: from the four cells of the window rows that
// begin with the row `first`. The lines are contiguous.
template <typename scalar_t>
MMPOOL_CLONES void store_pairs(
    const float* cells, int64_t count, int64_t pitch, int64_t first, const float* input, int64_t begin, int64_t end, scalar_t* target) {
  for (int64_t row = begin; row < end; ++row, input += 2 * pitch, target += 2 * pitch) {
    const float* __restrict even = cells + row % 2 * 2 * count + (row / 2 - first) * pitch;
    const float* __restrict odd = even + count;
    const float* __restrict x = input;
    scalar_t* __restrict to = target;
    const int64_t wide = stretched(pitch, (end - row) * pitch);
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < wide; ++i) {
      const float a = even[i], b = odd[i];
      to[2 * i] = static_cast<scalar_t>(x[2 * i] < 0.0f ? 0.0f : a);
      to[2 * i + 1] = static_cast<scalar_t>(x[2 * i + 1] < 0.0f ? 0.0f : b);
    }
  }
}

}  // namespace
}  // namespace mmpool_ext
