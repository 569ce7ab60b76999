// LIP on one tile, in float32, with one exponential an input pixel.
//
// The exponentials of a row are taken relative to that row's largest logit, as powers of two (exp_shifted), so that they cost no accuracy
// and rows combine exactly. A window's sum of them is then nothing or tiny where its logits lie far below its rows' largest; such a window,
// and any with a NaN or an infinity, is done again by the definition in common/pool.h. Nothing here depends on ATen.
#pragma once

#include <cmath>

#include "tile.h"

namespace mmpool_ext {
namespace {

// As integers that order like the floats: the compiler may then reorder the search. A NaN with a clear sign bit is larger than all.
MMPOOL_CLONES float largest(const float* __restrict values, int64_t count) {
  int32_t best = INT32_MIN;
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = as_bits(values[i]), key = bits ^ ((bits >> 31) & INT32_MAX);
    best = best < key ? key : best;
  }
  return as_float(best ^ ((best >> 31) & INT32_MAX));
}

// exp(logit - center) * 2 ** -shift; `low` is where that becomes 0.
MMPOOL_CLONES void exp_row(const float* __restrict logit, float* __restrict weight, float center, float low, int32_t bias, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float x = logit[i] - center;
    weight[i] = exp_shifted(x < low ? low : x, bias);
  }
}

// total = sum of factor * weight over the rows, sum = the same with the input.
template <int kRows>
MMPOOL_CLONES void add_rows(
    const float* const* weights, const float* const* inputs, const float* factors, float* __restrict total, float* __restrict sum, int64_t count) {
  const float* __restrict w[kRows];
  const float* __restrict x[kRows];
  float f[kRows];
  for (int r = 0; r < kRows; ++r) w[r] = weights[r], x[r] = inputs[r], f[r] = factors[r];
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    float t = 0.0f, s = 0.0f;
    for (int r = 0; r < kRows; ++r) {
      const float weight = f[r] * w[r][i];
      t += weight;
      s += weight * x[r][i];
    }
    total[i] = t;
    sum[i] = s;
  }
}

MMPOOL_CLONES void add_row(const float* __restrict w, const float* __restrict x, float f, float* __restrict total, float* __restrict sum, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float weight = f * w[i];
    total[i] += weight;
    sum[i] += weight * x[i];
  }
}

// Add the taps of each window and divide; returns whether some window's total is no good. kTaps = 0: any number.
template <int kTaps>
MMPOOL_CLONES int32_t add_taps(
    const float* __restrict total, const float* __restrict sum, const float* __restrict guard, const int64_t* taps, int64_t count, int64_t groups,
    int64_t lanes, int64_t step, float* __restrict totals, float* __restrict means) {
  int32_t bad = 0;
  for (int64_t group = 0; group < groups; ++group) {
    const float* __restrict t = total + group * step;
    const float* __restrict s = sum + group * step;
    const float* __restrict outside = guard + group * lanes;
    float* __restrict out = totals + group * lanes;
    float* __restrict mean = means + group * lanes;
    if constexpr (kTaps == 0) {
      MMPOOL_INDEPENDENT
      for (int64_t i = 0; i < lanes; ++i) out[i] = outside[i], mean[i] = 0.0f;
      for (int64_t j = 0; j < count; ++j) {
        const int64_t tap = taps[j];
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < lanes; ++i) out[i] += t[tap + i], mean[i] += s[tap + i];
      }
      MMPOOL_INDEPENDENT
      for (int64_t i = 0; i < lanes; ++i) {
        mean[i] /= out[i];
        bad |= out[i] > kTiny ? 0 : 1;
      }
    } else {
      int64_t tap[kTaps];
      for (int j = 0; j < kTaps; ++j) tap[j] = taps[j];
      MMPOOL_INDEPENDENT
      for (int64_t i = 0; i < lanes; ++i) {
        float a = outside[i], b = 0.0f;
        for (int j = 0; j < kTaps; ++j) {
          a += t[tap[j] + i];
          b += s[tap[j] + i];
        }
        out[i] = a;
        mean[i] = b / a;
        bad |= a > kTiny ? 0 : 1;
      }
    }
  }
  return bad;
}

// In place: the output gradient over the window's total; 0 where the window is done again elsewhere.
MMPOOL_CLONES void divide_good(float* __restrict grad, float* __restrict means, const float* __restrict totals, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float share = grad[i] / totals[i], mean = means[i];
    grad[i] = totals[i] > kTiny ? share : 0.0f;
    means[i] = totals[i] > kTiny ? mean : 0.0f;
  }
}

// Spread a row of windows over one of its input rows, one tap after the other.
MMPOOL_CLONES void spread_row(
    const float* __restrict grad, const float* __restrict means, const float* __restrict input, float factor, const int64_t* taps, int64_t count,
    int64_t groups, int64_t lanes, int64_t step, float* __restrict to_input, float* __restrict to_logit) {
  for (int64_t group = 0; group < groups; ++group) {
    const float* __restrict g = grad + group * lanes;
    const float* __restrict m = means + group * lanes;
    for (int64_t j = 0; j < count; ++j) {
      const int64_t at = group * step + taps[j];
      const float* __restrict x = input + at;
      float* __restrict gx = to_input + at;
      float* __restrict gl = to_logit + at;
      MMPOOL_INDEPENDENT
      for (int64_t i = 0; i < lanes; ++i) {
        const float share = factor * g[i];
        gx[i] += share;
        gl[i] += share * (x[i] - m[i]);
      }
    }
  }
}

MMPOOL_CLONES void scale_both(const float* __restrict weight, float* __restrict a, float* __restrict b, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    a[i] *= weight[i];
    b[i] *= weight[i];
  }
}

}  // namespace

// Parts of a row: input, logit and then weight, gradients of both.
struct LipRows {
  using Rule = Lip<float>;
  static constexpr int kParts = 2, kGradients = 2;
  int32_t headroom = 1;  // a window's weights add up to less than 1, so that no sum overflows

  LipRows(const Window<int64_t>& window, const Strip& /*strip*/) {
    for (int64_t cells = window.y.kernel * window.x.kernel; cells > 1; cells = (cells + 1) / 2) ++headroom;
  }

  void prepare(const Windows& windows, Row& row) const {
    const Strip& strip = windows.strip;
    float* weight = row.parts[1];
    const float top = largest(windows.staged, strip.length);
    if (!(std::abs(top) <= 1e30f)) {
      std::fill_n(weight, strip.length, 0.0f);
      row.level = -infinity<double>();
      return;
    }
    const float center = std::abs(top) > 1e3f ? top : 0.0f;  // between logits this large the difference is exact
    const int32_t shift = static_cast<int32_t>(std::lrint((top - center) * 1.44269504f)) + headroom;
    exp_row(windows.staged, weight, center, static_cast<float>((shift - 127) * 0.6931471805599453), kRoundBits + shift - 127, strip.length);
    row.level = center * 1.4426950408889634 + shift;
  }

  bool pool(Windows& windows) const {
    const Strip& strip = windows.strip;
    double level = -infinity<double>();
    bool known = true;
    for (const Row* row : windows.rows) {
      level = std::max(level, row->level);
      known = known && row->level != -infinity<double>();
    }
    const float *weights[3], *inputs[3];
    float factors[3];
    const size_t count = windows.rows.size(), together = std::min<size_t>(count, 3);
    for (size_t r = 0; r < count; ++r) {
      const Row& row = *windows.rows[r];
      const float factor = !known ? 0.0f : row.level == level ? 1.0f : static_cast<float>(std::exp2(row.level - level));
      windows.factors[r] = factor;
      if (r < together) weights[r] = row.parts[1], inputs[r] = row.parts[0], factors[r] = factor;
    }
    const auto add = together == 1 ? add_rows<1> : together == 2 ? add_rows<2> : add_rows<3>;
    add(weights, inputs, factors, windows.first, windows.second, strip.length);
    for (size_t r = together; r < count; ++r) {
      const Row& row = *windows.rows[r];
      add_row(row.parts[1], row.parts[0], windows.factors[r], windows.first, windows.second, strip.length);
    }
    const auto reduce = strip.axis.kernel == 2 ? add_taps<2> : strip.axis.kernel == 3 ? add_taps<3> : add_taps<0>;
    return !reduce(
        windows.first, windows.second, windows.guard, strip.taps.data(), strip.axis.kernel, strip.groups, strip.lanes, strip.step, windows.totals,
        windows.means);
  }

  void spread(Windows& windows) const {
    const Strip& strip = windows.strip;
    divide_good(windows.grad_output, windows.means, windows.totals, strip.outputs());
    for (size_t r = 0; r < windows.rows.size(); ++r) {
      const Row& row = *windows.rows[r];
      spread_row(
          windows.grad_output, windows.means, row.parts[0], windows.factors[r], strip.taps.data(), strip.axis.kernel, strip.groups, strip.lanes,
          strip.step, row.parts[2], row.parts[3]);
    }
  }

  void finish(const Strip& strip, const Row& row) const { scale_both(row.parts[1], row.parts[2], row.parts[3], strip.length); }
};

}  // namespace mmpool_ext
