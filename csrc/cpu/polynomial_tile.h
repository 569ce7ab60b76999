// P-pooling on one tile: one logarithm an input pixel, split into exponent and fraction so that their difference to the window's largest
// loses nothing; one power a cell. Windows with denormals, very large values, NaN or an odd alpha go to the definition.
#pragma once

#include "tile.h"

namespace mmpool_ext {
namespace {

constexpr float kZeroExponent = -1e30f;  // the logarithm of 0: any alpha > 1e-20 makes nothing of it, and alpha = 0 makes 1

// Exponent and fraction of log2(max(x, 0)); NaN where the definition is needed.
MMPOOL_CLONES void log_row(const float* __restrict input, float* __restrict exponent, float* __restrict fraction, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float x = input[i];
    float e, f;
    log2_split(x, e, f);
    const bool zero = x <= 0.0f, normal = x >= 1.17549435e-38f && x <= 1e30f;
    exponent[i] = zero ? kZeroExponent : normal ? e : __builtin_nanf("");
    fraction[i] = zero ? 0.0f : f;
  }
}

// The cell of each window that lies at a column offset, from its row: for every lane, in[group * step + lane] belongs to out[group * lanes + lane].

// Largest pixel so far.
MMPOOL_CLONES void raise_top(const float* x, int64_t groups, int64_t lanes, int64_t step, float* top) {
  for (int64_t group = 0; group < groups; ++group) {
    const float* __restrict in = x + group * step;
    float* __restrict best = top + group * lanes;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < lanes; ++i) best[i] = best[i] < in[i] ? in[i] : best[i];
  }
}

// Add weight and weighted value; `inside` is 1 in the columns of the image.
MMPOOL_CLONES void add_power(
    const float* x, const float* exponent, const float* fraction, const float* inside, const float* alpha, const float* top_exponent,
    const float* top_fraction, int64_t groups, int64_t lanes, int64_t step, float* totals, float* sums) {
  for (int64_t group = 0; group < groups; ++group) {
    const float *__restrict in = x + group * step, *__restrict e = exponent + group * step, *__restrict f = fraction + group * step;
    const float *__restrict valid = inside + group * step, *__restrict a = alpha + group * lanes;
    const float *__restrict te = top_exponent + group * lanes, *__restrict tf = top_fraction + group * lanes;
    float *__restrict total = totals + group * lanes, *__restrict sum = sums + group * lanes;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < lanes; ++i) {
      const float value = in[i] < 0.0f ? 0.0f : in[i];
      const float weight = valid[i] * exp2_bounded(a[i] * ((e[i] - te[i]) + (f[i] - tf[i])));
      total[i] += weight;
      sum[i] += weight * value;
    }
  }
}

// Sums to means; a total of 0 says that the window is to be done again, and so does the result.
MMPOOL_CLONES int32_t divide_windows(const float* __restrict alpha, float* __restrict totals, float* __restrict means, int64_t count) {
  int32_t bad = 0;
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float a = alpha[i], total = totals[i];
    const bool usual = ((a == 0.0f) | (a >= 1e-20f)) & (total > kTiny);
    means[i] = means[i] / total;
    totals[i] = usual ? total : 0.0f;
    bad |= usual ? 0 : 1;
  }
  return bad;
}

// In place: grad_output to its share of the total, 0 where the window is done again elsewhere; top to the mean in units of it.
MMPOOL_CLONES void share_windows(const float* __restrict totals, const float* __restrict means, float* __restrict grad_output, float* __restrict top, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float share = grad_output[i] / totals[i], ratio = means[i] / top[i];
    grad_output[i] = totals[i] > kTiny ? share : 0.0f;
    top[i] = top[i] > 0.0f ? ratio : 1.0f;
  }
}

// Add the gradients of input and alpha.
MMPOOL_CLONES void spread_power(
    const float* x, const float* exponent, const float* fraction, const float* inside, const float* alpha, const float* top_exponent,
    const float* top_fraction, const float* ratio, const float* means, const float* shares, int64_t groups, int64_t lanes, int64_t step,
    float* to_input, float* to_alpha) {
  for (int64_t group = 0; group < groups; ++group) {
    const float *__restrict in = x + group * step, *__restrict e = exponent + group * step, *__restrict f = fraction + group * step;
    const float *__restrict valid = inside + group * step, *__restrict a = alpha + group * lanes;
    const float *__restrict te = top_exponent + group * lanes, *__restrict tf = top_fraction + group * lanes;
    const float *__restrict r = ratio + group * lanes, *__restrict m = means + group * lanes, *__restrict share = shares + group * lanes;
    float *__restrict gx = to_input + group * step, *__restrict ga = to_alpha + group * lanes;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < lanes; ++i) {
      const float value = in[i] < 0.0f ? 0.0f : in[i], log = (e[i] - te[i]) + (f[i] - tf[i]);
      const float weight = valid[i] * exp2_bounded(a[i] * log);
      const float floor = log < -19.9315686f ? -19.9315686f : log;  // ratios below 1e-6 count as that where the slope at 0 is infinite
      const float slope = valid[i] * exp2_bounded((a[i] - 1.0f) * (a[i] < 1.0f ? floor : log));
      const float grad = share[i] * (weight * (1.0f + a[i]) - a[i] * r[i] * slope);
      const float by_log = share[i] * weight * (value - m[i]) * (log < -1e29f ? 0.0f : log) * 0.69314718f;
      const bool counts = share[i] != 0.0f;
      gx[i] += counts ? grad : 0.0f;
      ga[i] += counts ? by_log : 0.0f;
    }
  }
}

MMPOOL_CLONES void drop_negative(const float* __restrict input, float* __restrict grad, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float kept = grad[i];
    grad[i] = input[i] < 0.0f ? 0.0f : kept;
  }
}

}  // namespace

// Parts of a row: input, exponent and fraction of its logarithm, gradient of the input.
class PolynomialRows {
 public:
  using Rule = Polynomial<float>;
  static constexpr int kParts = 3, kGradients = 1;

  PolynomialRows(const Window<int64_t>& /*window*/, const Strip& strip)
      : inside_(strip.length, 1.0f), top_(strip.outputs()), top_exponent_(strip.outputs()), top_fraction_(strip.outputs()) {
    fill(strip.empty, inside_.data(), 0.0f);
  }

  void prepare(const Windows& windows, Row& row) const { log_row(row.parts[0], row.parts[1], row.parts[2], windows.strip.length); }

  bool pool(Windows& windows) {
    const Strip& strip = windows.strip;
    std::fill(top_.begin(), top_.end(), 0.0f);
    std::copy_n(windows.guard, strip.outputs(), windows.totals);
    std::fill_n(windows.means, strip.outputs(), 0.0f);
    for_each_cell(windows, [&](const Row& row, int64_t tap) { raise_top(row.parts[0] + tap, strip.groups, strip.lanes, strip.step, top_.data()); });
    log_row(top_.data(), top_exponent_.data(), top_fraction_.data(), strip.outputs());
    for_each_cell(windows, [&](const Row& row, int64_t tap) {
      add_power(
          row.parts[0] + tap, row.parts[1] + tap, row.parts[2] + tap, inside_.data() + tap, windows.weight, top_exponent_.data(),
          top_fraction_.data(), strip.groups, strip.lanes, strip.step, windows.totals, windows.means);
    });
    return !divide_windows(windows.weight, windows.totals, windows.means, strip.outputs());
  }

  void spread(Windows& windows) {
    const Strip& strip = windows.strip;
    share_windows(windows.totals, windows.means, windows.grad_output, top_.data(), strip.outputs());
    std::fill_n(windows.grad_weight, strip.outputs(), 0.0f);
    for_each_cell(windows, [&](const Row& row, int64_t tap) {
      spread_power(
          row.parts[0] + tap, row.parts[1] + tap, row.parts[2] + tap, inside_.data() + tap, windows.weight, top_exponent_.data(),
          top_fraction_.data(), top_.data(), windows.means, windows.grad_output, strip.groups, strip.lanes, strip.step, row.parts[3] + tap,
          windows.grad_weight);
    });
  }

  void finish(const Strip& strip, const Row& row) const { drop_negative(row.parts[0], row.parts[3], strip.length); }

 private:
  template <typename F>
  void for_each_cell(const Windows& windows, const F& f) const {
    for (const Row* row : windows.rows) {
      for (const int64_t tap : windows.strip.taps) f(*row, tap);
    }
  }

  std::vector<float> inside_, top_, top_exponent_, top_fraction_;
};

}  // namespace mmpool_ext
