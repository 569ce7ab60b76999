// The loops of lip_tile.h. Nothing here depends on ATen.
#pragma once

#include <array>
#include <cmath>

#include "tile.h"

namespace mmpool_ext {
namespace {

// As integers that order like the floats: the compiler may then reorder the search. A NaN with a clear sign bit is larger than all.
template <typename weight_t>
MMPOOL_CLONES float largest(const weight_t* values, const Runs& runs) {
  int32_t best = INT32_MIN;
  for (int64_t run = 0; run < runs.count; ++run) {
    const weight_t* __restrict from = values + run * runs.step;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < runs.length; ++i) {
      const int32_t bits = as_bits(static_cast<float>(from[i])), key = bits ^ ((bits >> 31) & INT32_MAX);
      best = best < key ? key : best;
    }
  }
  return as_float(best ^ ((best >> 31) & INT32_MAX));
}

constexpr float kSafeLogit = 24.0f;

// exp(logit) * 2 ** -shift, `round` = kRound - shift, right if no logit is beyond kSafeLogit either way; returns whether that is so. On the way, fetch
// the logits and pixels that lie `ahead`.
template <typename scalar_t, typename weight_t>
MMPOOL_CLONES bool exp_safe(const weight_t* logit, const scalar_t* input, int64_t ahead, const Runs& runs, float* weight, float round) {
  int32_t worst = 0;  // as integers, in which a NaN is larger than all
  for (int64_t run = 0; run < runs.count; ++run) {
    for (int64_t at = 0; at < runs.length; at += kFetch) {
      const int64_t count = runs.length - at < kFetch ? runs.length - at : kFetch, start = run * runs.step + at;
      fetch(logit + start + ahead, count);
      fetch(input + start + ahead, count);
      const weight_t* __restrict from = logit + start;
      float* __restrict to = weight + run * runs.length + at;
      MMPOOL_INDEPENDENT
      for (int64_t i = 0; i < count; ++i) {
        const float x = static_cast<float>(from[i]);
        const int32_t size = as_bits(x) & INT32_MAX;
        worst = worst < size ? size : worst;
        to[i] = exp_shifted(x, round);
      }
    }
  }
  return worst <= as_bits(kSafeLogit);
}

// exp(logit - center) * 2 ** -shift, 0 below `low`.
template <typename weight_t>
MMPOOL_CLONES void exp_runs(const weight_t* logit, const Runs& runs, float* weight, float center, float low, float round) {
  for (int64_t run = 0; run < runs.count; ++run) {
    const weight_t* __restrict from = logit + run * runs.step;
    float* __restrict to = weight + run * runs.length;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < runs.length; ++i) {
      const float x = static_cast<float>(from[i]) - center;
      to[i] = x < low ? 0.0f : exp_shifted(x, round);
    }
  }
}

// exp(gate_scale * (sigmoid - 1)) * 2 ** -shift, `round` = kRound - shift, for `rows` rows of `width` responses, with a mean, scale and bias for each of
// the `width`: the weight of a gated logit less its largest value, so that it lies between exp(-gate_scale) and 1. On the way, fetch what lies `ahead`.
template <typename scalar_t, typename weight_t>
MMPOOL_CLONES void exp_gated(
    const weight_t* response, const scalar_t* input, int64_t ahead, int64_t rows, int64_t width, int64_t step, float* weight, int64_t pitch,
    const float* __restrict mean, const float* __restrict scale, const float* __restrict bias, float gate_scale, float round) {
  for (int64_t row = 0; row < rows; ++row) {
    fetch(response + row * step + ahead, width);
    fetch(input + row * step + ahead, width);
    const weight_t* __restrict from = response + row * step;
    float* __restrict to = weight + row * pitch;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < width; ++i) {
      const float s = sigmoid((static_cast<float>(from[i]) - mean[i]) * scale[i] + bias[i]);
      to[i] = exp_shifted(gate_scale * (s - 1.0f), round) + (s - s);
    }
  }
}

// Gradients of logits, in place, to those of the normalized responses.
template <typename weight_t>
MMPOOL_CLONES void multiply_slope(
    const weight_t* response, float* grad, int64_t rows, int64_t width, int64_t step, const float* __restrict mean, const float* __restrict scale,
    const float* __restrict bias, float gate_scale) {
  for (int64_t row = 0; row < rows; ++row) {
    const weight_t* __restrict from = response + row * step;
    float* __restrict to = grad + row * step;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < width; ++i) {
      const float s = sigmoid((static_cast<float>(from[i]) - mean[i]) * scale[i] + bias[i]);
      to[i] *= gate_scale * s * (1.0f - s);
    }
  }
}

// Memory that will be written, and how many bytes of it belong to a row of windows.
struct Target {
  const char* data = nullptr;
  int64_t bytes = 0;
};

// Down the columns: for the window rows [begin, end) of a plane, total = sum of weight over the taps, sum = the same of weight * input.
// Weight and input begin with the row `first`; rows outside the image are `zeros`. kTaps = 0: any number. On the way, fetch the targets.
template <int kTaps>
MMPOOL_CLONES void add_rows(
    const float* weight, const float* input, const float* zeros, const Axis<int64_t>& axis, int64_t first, int64_t begin, int64_t end, int64_t pitch,
    int64_t count, float* totals, float* sums, int64_t padded, const std::array<Target, 2>& targets) {
  for (int64_t oy = begin; oy < end; ++oy, totals += padded, sums += padded) {
    for (const Target& target : targets) fetch<true>(target.data + (oy - begin) * target.bytes, target.bytes);
    float* __restrict total = totals;
    float* __restrict sum = sums;
    if constexpr (kTaps == 0) {
      std::fill_n(total, count, 0.0f);
      std::fill_n(sum, count, 0.0f);
      for (int64_t tap = axis.first_tap(oy); tap < axis.end_tap(oy); ++tap) {
        const float* __restrict w = weight + (axis.pixel(oy, tap) - first) * pitch;
        const float* __restrict x = input + (axis.pixel(oy, tap) - first) * pitch;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < count; ++i) {
          total[i] += w[i];
          sum[i] += w[i] * x[i];
        }
      }
    } else {
      const float* __restrict w[kTaps];
      const float* __restrict x[kTaps];
      for (int tap = 0; tap < kTaps; ++tap) {
        const int64_t y = axis.pixel(oy, tap);
        const bool inside = y >= 0 && y < axis.input;
        w[tap] = inside ? weight + (y - first) * pitch : zeros;
        x[tap] = inside ? input + (y - first) * pitch : zeros;
      }
      MMPOOL_INDEPENDENT
      for (int64_t i = 0; i < count; ++i) {
        float t = 0.0f, s = 0.0f;
        for (int tap = 0; tap < kTaps; ++tap) {
          t += w[tap][i];
          s += w[tap][i] * x[tap][i];
        }
        total[i] = t;
        sum[i] = s;
      }
    }
  }
}

constexpr float kLargest = 3.0e38f;  // a mean beyond is infinite, or nearly

// Along the rows, and divide: windows [0, count) of `interleaved` floats; window w starts at pixel stride * w. A total of 0 says that the window is to be
// done again, and so does the result. `guard` is 1 in the lanes that are no window. kStride = 0: any stride and interleaved.
template <int kStride, int kTaps>
MMPOOL_CLONES int32_t add_taps(
    const float* __restrict total, const float* __restrict sum, const float* __restrict guard, int64_t stride, int64_t dilation, int64_t taps,
    int64_t count, int64_t interleaved, float* __restrict totals, float* __restrict means) {
  int32_t bad = 0;
  if constexpr (kStride > 0) {
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) {
      float a = guard[i], b = 0.0f;
      for (int tap = 0; tap < kTaps; ++tap) {
        a += total[kStride * i + tap];
        b += sum[kStride * i + tap];
      }
      const float mean = b / a;
      const bool trusted = (a > kTiny) & (std::abs(mean) <= kLargest);
      totals[i] = trusted ? a : 0.0f;
      means[i] = mean;
      bad |= trusted ? 0 : 1;
    }
  } else {
    std::copy_n(guard, count * interleaved, totals);
    std::fill_n(means, count * interleaved, 0.0f);
    for (int64_t window = 0; window < count; ++window) {
      float* __restrict a = totals + window * interleaved;
      float* __restrict b = means + window * interleaved;
      for (int64_t tap = 0; tap < taps; ++tap) {
        const float* __restrict t = total + (stride * window + dilation * tap) * interleaved;
        const float* __restrict s = sum + (stride * window + dilation * tap) * interleaved;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < interleaved; ++i) {
          a[i] += t[i];
          b[i] += s[i];
        }
      }
    }
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count * interleaved; ++i) {
      const float a = totals[i], mean = means[i] / a;
      const bool trusted = (a > kTiny) & (std::abs(mean) <= kLargest);
      totals[i] = trusted ? a : 0.0f;
      means[i] = mean;
      bad |= trusted ? 0 : 1;
    }
  }
  return bad;
}

// In place: the output gradient over the window's total; share and mean are 0 where the window is done again elsewhere.
MMPOOL_CLONES void share_windows(float* __restrict grad, float* __restrict means, const float* __restrict totals, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const bool trusted = totals[i] > kTiny;
    const float share = grad[i] / totals[i], mean = means[i];
    grad[i] = trusted ? share : 0.0f;
    means[i] = trusted ? mean : 0.0f;
  }
}

// The gradients of a pixel x of weight w that lies in windows of shares a and means m are w * sum a and w * sum a * (x - m). Seen from any mean M,
// the second is w * ((x - M) * sum a + correction), correction = sum a * (M - m): differences only, so nothing cancels.
struct Spread {
  float *share, *mean, *correction;
};

// Give each pixel of the padded lines these three for the windows along its row, seen from the last mean with a share: the reverse of add_taps.
template <int kStride, int kTaps>
MMPOOL_CLONES void spread_taps(
    const float* __restrict share, const float* __restrict mean, int64_t stride, int64_t dilation, int64_t taps, int64_t count, int64_t interleaved,
    int64_t padded, const Spread& spread) {
  float* __restrict shares = spread.share;
  float* __restrict means = spread.mean;
  float* __restrict corrections = spread.correction;
  if constexpr (kStride > 0) {
    static_assert(kStride == 2 && (kTaps == 2 || kTaps == 3));
    const float* __restrict share_before = share - 1;
    const float* __restrict mean_before = mean - 1;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) {
      const float a = share[i], m = mean[i], before = kTaps == 3 ? share_before[i] : 0.0f, center = a != 0.0f ? m : mean_before[i];
      shares[2 * i] = a + before;
      shares[2 * i + 1] = a;
      means[2 * i] = kTaps == 3 ? center : m;
      means[2 * i + 1] = m;
      corrections[2 * i] = kTaps == 3 ? before * (center - mean_before[i]) : 0.0f;
      corrections[2 * i + 1] = 0.0f;
    }
  } else {
    std::fill_n(shares, padded, 0.0f);
    std::fill_n(means, padded, 0.0f);
    std::fill_n(corrections, padded, 0.0f);
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t window = 0; window < count; ++window) {
        const float* __restrict a = share + window * interleaved;
        const float* __restrict m = mean + window * interleaved;
        float* __restrict to_share = shares + (stride * window + dilation * tap) * interleaved;
        float* __restrict to_mean = means + (stride * window + dilation * tap) * interleaved;
        float* __restrict to_correction = corrections + (stride * window + dilation * tap) * interleaved;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < interleaved; ++i) {
          const float center = a[i] != 0.0f ? m[i] : to_mean[i];
          to_correction[i] += to_share[i] * (center - to_mean[i]);
          to_share[i] += a[i];
          to_mean[i] = center;
        }
      }
    }
  }
}

template <bool kIsInput, typename scalar_t, typename weight_t>
inline void give_gradients(scalar_t* to_input, weight_t* to_logit, float weight, float share, float product) {
  *to_input = static_cast<scalar_t>(weight * (kIsInput ? share + product : share));
  if constexpr (!kIsInput) *to_logit = static_cast<weight_t>(weight * product);
}

// The reverse of add_rows, for the input rows [begin, end) of a plane: their gradients. Weight and input begin with the row `first_row`; the lines of
// `padded` floats that spread_taps made with the window row `top`. A pixel lies in at most kRows window rows; 0: any number, whose sums go through
// `sums`, two lines. kIsInput: the logit is the input, whose gradient is the sum of both, and there is no other.
template <int kRows, bool kIsInput, typename scalar_t, typename weight_t>
MMPOOL_CLONES void spread_rows(
    const float* weight, const float* input, const Spread& spread, const float* zeros, float* sums, const Axis<int64_t>& axis, int64_t first_row,
    int64_t top, int64_t begin, int64_t end, int64_t pitch, int64_t padded, const Runs& runs, scalar_t* to_input, weight_t* to_logit, int64_t step) {
  for (int64_t row = begin; row < end; ++row, to_input += step, to_logit += step) {
    const int64_t first = axis.first_window(row), last = axis.end_window(row);
    const bool held = first < last;
    const float* const weights = held ? weight + (row - first_row) * pitch : zeros;
    const float* const inputs = held ? input + (row - first_row) * pitch : zeros;
    if constexpr (kRows == 0) {
      float* __restrict sum = sums;
      float* __restrict product = sums + padded;
      std::fill_n(sums, 2 * padded, 0.0f);
      for (int64_t oy = first; oy < last; ++oy) {
        if (!axis.holds(oy, row)) continue;
        const float* __restrict a = spread.share + (oy - top) * padded;
        const float* __restrict m = spread.mean + (oy - top) * padded;
        const float* __restrict r = spread.correction + (oy - top) * padded;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < runs.count * runs.length; ++i) {
          sum[i] += a[i];
          product[i] += a[i] * (inputs[i] - m[i]) + r[i];
        }
      }
    }
    const int64_t wide = stretched(runs.length, step == pitch ? (end - row - 1) * step + runs.length : 0);
    for (int64_t run = 0; run < runs.count; ++run) {
      const int64_t at = run * runs.length;
      const float* __restrict w = weights + at;
      const float* __restrict x = inputs + at;
      scalar_t* __restrict gx = to_input + run * runs.step;
      weight_t* __restrict gl = to_logit + run * runs.step;
      if constexpr (kRows == 0) {
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < wide; ++i) {
          give_gradients<kIsInput>(gx + i, gl + i, w[i], sums[at + i], sums[padded + at + i]);
        }
      } else if (kRows == 1 || last - first == 1) {
        const int64_t line = at + (first - top) * padded;
        const float* __restrict a = held ? spread.share + line : zeros;
        const float* __restrict m = held ? spread.mean + line : zeros;
        const float* __restrict r = held ? spread.correction + line : zeros;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < wide; ++i) {
          give_gradients<kIsInput>(gx + i, gl + i, w[i], a[i], a[i] * (x[i] - m[i]) + r[i]);
        }
      } else {
        const float* __restrict a[kRows];
        const float* __restrict m[kRows];
        const float* __restrict r[kRows];
        for (int i = 0; i < kRows; ++i) {
          const int64_t line = at + (first + i - top) * padded;
          a[i] = first + i < last ? spread.share + line : zeros;
          m[i] = first + i < last ? spread.mean + line : zeros;
          r[i] = first + i < last ? spread.correction + line : zeros;
        }
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < wide; ++i) {
          float sum = 0.0f, product = 0.0f;
          for (int j = 0; j < kRows; ++j) {
            sum += a[j][i];
            product += a[j][i] * (x[i] - m[j][i]) + r[j][i];
          }
          give_gradients<kIsInput>(gx + i, gl + i, w[i], sum, product);
        }
      }
    }
  }
}

}  // namespace
}  // namespace mmpool_ext
