// LIP on a tile, in float32, with one exponential an input pixel: sums of weights and of weighted pixels, down the columns first, then along the
// rows; the gradients the other way round.
//
// The exponentials are scaled by a power of two, so that no sum overflows: a fixed one where no logit of the band is large, which is found out on the
// way, else one by the plane's largest logit in the band. That costs no accuracy. A window whose sum of them is nothing or tiny for all that, and any
// with a NaN or an infinity, is done again by the definition. Nothing here depends on ATen.
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

constexpr float kUsual = 24.0f;

// exp(logit) * 2 ** -shift, `round` = kRound - shift, right if no logit is beyond kUsual either way; returns whether that is so. On the way, fetch
// the logits and pixels that lie `ahead`.
template <typename scalar_t, typename weight_t>
MMPOOL_CLONES bool exp_usual(const weight_t* logit, const scalar_t* input, int64_t ahead, const Runs& runs, float* weight, float round) {
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
  return worst <= as_bits(kUsual);
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

// Along the rows, and divide: windows [0, count) of `unit` floats; window w starts at pixel stride * w. A total of 0 says that the window is to be
// done again, and so does the result. `guard` is 1 in the lanes that are no window. kStride = 0: any stride and unit.
template <int kStride, int kTaps>
MMPOOL_CLONES int32_t add_taps(
    const float* __restrict total, const float* __restrict sum, const float* __restrict guard, int64_t stride, int64_t dilation, int64_t taps,
    int64_t count, int64_t unit, float* __restrict totals, float* __restrict means) {
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
      const bool usual = (a > kTiny) & (std::abs(mean) <= kLargest);
      totals[i] = usual ? a : 0.0f;
      means[i] = mean;
      bad |= usual ? 0 : 1;
    }
  } else {
    std::copy_n(guard, count * unit, totals);
    std::fill_n(means, count * unit, 0.0f);
    for (int64_t window = 0; window < count; ++window) {
      float* __restrict a = totals + window * unit;
      float* __restrict b = means + window * unit;
      for (int64_t tap = 0; tap < taps; ++tap) {
        const float* __restrict t = total + (stride * window + dilation * tap) * unit;
        const float* __restrict s = sum + (stride * window + dilation * tap) * unit;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < unit; ++i) {
          a[i] += t[i];
          b[i] += s[i];
        }
      }
    }
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count * unit; ++i) {
      const float a = totals[i], mean = means[i] / a;
      const bool usual = (a > kTiny) & (std::abs(mean) <= kLargest);
      totals[i] = usual ? a : 0.0f;
      means[i] = mean;
      bad |= usual ? 0 : 1;
    }
  }
  return bad;
}

// In place: the output gradient over the window's total; share and mean are 0 where the window is done again elsewhere.
MMPOOL_CLONES void share_windows(float* __restrict grad, float* __restrict means, const float* __restrict totals, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const bool usual = totals[i] > kTiny;
    const float share = grad[i] / totals[i], mean = means[i];
    grad[i] = usual ? share : 0.0f;
    means[i] = usual ? mean : 0.0f;
  }
}

// The gradients of a pixel x of weight w that lies in windows of shares a and means m are w * sum a and w * sum a * (x - m). Seen from any mean M,
// the second is w * ((x - M) * sum a + rest), rest = sum a * (M - m): differences only, so nothing cancels.
struct Spread {
  float *share, *mean, *rest;
};

// Give each pixel of the padded lines these three for the windows along its row, seen from the last mean with a share: the reverse of add_taps.
template <int kStride, int kTaps>
MMPOOL_CLONES void spread_taps(
    const float* __restrict share, const float* __restrict mean, int64_t stride, int64_t dilation, int64_t taps, int64_t count, int64_t unit,
    int64_t padded, const Spread& spread) {
  float* __restrict shares = spread.share;
  float* __restrict means = spread.mean;
  float* __restrict rests = spread.rest;
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
      rests[2 * i] = kTaps == 3 ? before * (center - mean_before[i]) : 0.0f;
      rests[2 * i + 1] = 0.0f;
    }
  } else {
    std::fill_n(shares, padded, 0.0f);
    std::fill_n(means, padded, 0.0f);
    std::fill_n(rests, padded, 0.0f);
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t window = 0; window < count; ++window) {
        const float* __restrict a = share + window * unit;
        const float* __restrict m = mean + window * unit;
        float* __restrict to_share = shares + (stride * window + dilation * tap) * unit;
        float* __restrict to_mean = means + (stride * window + dilation * tap) * unit;
        float* __restrict to_rest = rests + (stride * window + dilation * tap) * unit;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < unit; ++i) {
          const float center = a[i] != 0.0f ? m[i] : to_mean[i];
          to_rest[i] += to_share[i] * (center - to_mean[i]);
          to_share[i] += a[i];
          to_mean[i] = center;
        }
      }
    }
  }
}

// The reverse of add_rows, for the input rows [begin, end) of a plane: their gradients. Weight and input begin with the row `known`; the lines of
// `padded` floats that spread_taps made with the window row `top`. A pixel lies in at most kRows window rows; 0: any number, whose sums go through
// `sums`, two lines.
template <int kRows, typename scalar_t, typename weight_t>
MMPOOL_CLONES void spread_rows(
    const float* weight, const float* input, const Spread& spread, const float* zeros, float* sums, const Axis<int64_t>& axis, int64_t known,
    int64_t top, int64_t begin, int64_t end, int64_t pitch, int64_t padded, const Runs& runs, scalar_t* to_input, weight_t* to_logit, int64_t step) {
  for (int64_t row = begin; row < end; ++row, to_input += step, to_logit += step) {
    const int64_t first = axis.first_window(row), last = axis.end_window(row);
    const bool held = first < last;
    const float* const weights = held ? weight + (row - known) * pitch : zeros;
    const float* const inputs = held ? input + (row - known) * pitch : zeros;
    if constexpr (kRows == 0) {
      float* __restrict sum = sums;
      float* __restrict product = sums + padded;
      std::fill_n(sums, 2 * padded, 0.0f);
      for (int64_t oy = first; oy < last; ++oy) {
        if (!axis.holds(oy, row)) continue;
        const float* __restrict a = spread.share + (oy - top) * padded;
        const float* __restrict m = spread.mean + (oy - top) * padded;
        const float* __restrict r = spread.rest + (oy - top) * padded;
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
          gx[i] = static_cast<scalar_t>(w[i] * sums[at + i]);
          gl[i] = static_cast<weight_t>(w[i] * sums[padded + at + i]);
        }
      } else if (kRows == 1 || last - first == 1) {
        const int64_t line = at + (first - top) * padded;
        const float* __restrict a = held ? spread.share + line : zeros;
        const float* __restrict m = held ? spread.mean + line : zeros;
        const float* __restrict r = held ? spread.rest + line : zeros;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < wide; ++i) {
          gx[i] = static_cast<scalar_t>(w[i] * a[i]);
          gl[i] = static_cast<weight_t>(w[i] * (a[i] * (x[i] - m[i]) + r[i]));
        }
      } else {
        const float* __restrict a[kRows];
        const float* __restrict m[kRows];
        const float* __restrict r[kRows];
        for (int i = 0; i < kRows; ++i) {
          const int64_t line = at + (first + i - top) * padded;
          a[i] = first + i < last ? spread.share + line : zeros;
          m[i] = first + i < last ? spread.mean + line : zeros;
          r[i] = first + i < last ? spread.rest + line : zeros;
        }
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < wide; ++i) {
          float sum = 0.0f, product = 0.0f;
          for (int j = 0; j < kRows; ++j) {
            sum += a[j][i];
            product += a[j][i] * (x[i] - m[j][i]) + r[j][i];
          }
          gx[i] = static_cast<scalar_t>(w[i] * sum);
          gl[i] = static_cast<weight_t>(w[i] * product);
        }
      }
    }
  }
}

}  // namespace

template <typename scalar_t, typename weight_t>
class LipTile {
 public:
  LipTile(const Lines& lines, bool backward) : lines_(lines), window_(lines.window), inputs_(lines.planes) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    lanes_ = (x.output + x.dilation * (x.kernel - 1) / x.stride) * lines.unit;
    padded_ = x.stride * lanes_;
    columns_ = std::min(x.input, padded_ / lines.unit - x.padding);
    for (int64_t cells = y.kernel * x.kernel; cells > 1; cells = (cells + 1) / 2) ++headroom_;
    const int64_t line = lines.pixels(), rows = lines.band_rows();
    band_ = backward ? rows : std::max<int64_t>(1, rows / y.stride);
    const int64_t windows = std::min(y.output, backward ? band_ / y.stride + lines.overlap() + 1 : band_), count = windows * lines.planes;
    const int64_t under = std::min(y.input, (windows - 1) * y.stride + y.dilation * (y.kernel - 1) + 1) * lines.planes * line;
    memory_.assign(2 * under + (2 + 3) * (count + 1) * padded_ + 4 * (count + 1) * lanes_ + 2 * padded_ + padded_ + line + kBlock, 0.0f);
    float* next = memory_.data();
    const auto take = [&next](int64_t size) { return (next += size) - size; };
    weight_ = take(under), input_ = take(under);
    total_ = take((count + 1) * padded_), sum_ = take((count + 1) * padded_);  // a line more: the last lanes look beyond
    spread_ = {take((count + 1) * padded_), take((count + 1) * padded_), take((count + 1) * padded_)};
    totals_ = take(count * lanes_), guard_ = take(count * lanes_);
    means_ = take((count + 1) * lanes_) + lanes_, grad_ = take((count + 1) * lanes_) + lanes_;  // a line more: the first pixels look before
    sums_ = take(2 * padded_), zeros_ = take(padded_ + line + kBlock);
    for (int64_t i = 0; i < count; ++i) std::fill(guard_ + i * lanes_ + x.output * lines.unit, guard_ + (i + 1) * lanes_, 1.0f);
  }

  // Pool the output rows [begin, end).
  void forward(const Tile<const scalar_t>& input, const Tile<const weight_t>& weight, const Tile<scalar_t>& output, int64_t begin, int64_t end) {
    for (int64_t stop; begin < end; begin = stop) {
      stop = std::min(end, begin + band_);
      const bool good = pool(input, weight, begin, stop, [&](int64_t plane) { return std::array<Target, 2>{target(output, plane, begin, 1)}; });
      store_windows(lines_, means_, lanes_, output, begin, stop);
      if (good) continue;
      for_each_bad(lines_, totals_, lanes_, begin, stop, [&](int64_t oy, int64_t ox, int64_t unit) {
        redo_output<Lip<float>>(lines_, input, weight, output, oy, ox, unit);
      });
    }
  }

  // Gather the gradients of the input rows [begin, end).
  void backward(
      const Tile<const scalar_t>& grad_output, const Tile<const scalar_t>& input, const Tile<const weight_t>& weight,
      const Tile<scalar_t>& grad_input, const Tile<weight_t>& grad_logit, int64_t begin, int64_t end) {
    for (int64_t stop; begin < end; begin = stop) {
      stop = std::min(end, begin + band_);
      const int64_t first = window_.y.first_window(begin), last = std::max(first, window_.y.end_window(stop - 1));
      const int64_t row = std::max<int64_t>(0, window_.y.start(first)), rows = window_.y.stride;
      const bool good = first == last || pool(input, weight, first, last, [&](int64_t plane) {
        return std::array{target(grad_input, plane, row, rows), target(grad_logit, plane, row, rows)};
      });
      load_windows(lines_, grad_output, first, last, grad_, lanes_);
      share_windows(grad_, means_, totals_, (last - first) * lines_.planes * lanes_);
      spread(grad_input, grad_logit, begin, stop, first, last);
      if (good) continue;
      for_each_bad(lines_, totals_, lanes_, first, last, [&](int64_t oy, int64_t ox, int64_t unit) {
        redo_gradients<Lip<float>>(lines_, grad_output, input, weight, grad_input, grad_logit, begin, stop, oy, ox, unit);
      });
    }
  }

 private:
  bool pairs(int64_t taps) const { return lines_.unit == 1 && window_.x.stride == 2 && window_.x.kernel == taps && window_.x.dilation == 1; }

  // `rows` of a tile's rows from `row` on for each row of windows; none where they are not one piece of memory.
  template <typename T>
  Target target(const Tile<T>& tile, int64_t plane, int64_t row, int64_t rows) const {
    if (lines_.channels_last && tile.column != lines_.unit) return {};
    return {reinterpret_cast<const char*>(Lines::start(tile, plane, row)), rows * tile.row * static_cast<int64_t>(sizeof(T))};
  }

  // Totals and means of the window rows [begin, end); false where some are no good. targets(plane) is what add_rows is to fetch.
  template <typename F>
  bool pool(const Tile<const scalar_t>& input, const Tile<const weight_t>& weight, int64_t begin, int64_t end, const F& targets) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    const auto [first, last] = lines_.rows_under(begin, end);
    const int64_t rows = last - first, line = lines_.pixels(), count = (end - begin) * lines_.planes;
    const auto add = y.kernel == 3 ? add_rows<3> : y.kernel == 2 ? add_rows<2> : add_rows<0>;
    first_ = first, last_ = last;
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      float* const weights = weight_ + plane * rows * line;
      const Runs runs = lines_.runs(weight, rows, x.input);
      exponentiate(Lines::start(weight, plane, first), Lines::start(input, plane, first), rows * weight.row, runs, weights);
      inputs_[plane] = lines_of(lines_, input, plane, first, last, input_ + plane * rows * line);
      const int64_t at = plane * (end - begin) * padded_ + x.padding * lines_.unit;
      add(weights, inputs_[plane], zeros_, y, first, begin, end, line, columns_ * lines_.unit, total_ + at, sum_ + at, padded_, targets(plane));
    }
    const auto reduce = pairs(3) ? add_taps<2, 3> : pairs(2) ? add_taps<2, 2> : add_taps<0, 0>;
    return !reduce(total_, sum_, guard_, x.stride, x.dilation, x.kernel, count * lanes_ / lines_.unit, lines_.unit, totals_, means_);
  }

  void exponentiate(const weight_t* logit, const scalar_t* input, int64_t ahead, const Runs& runs, float* weight) const {
    if (exp_usual(logit, input, ahead, runs, weight, kRound - 35 - headroom_)) return;  // exp(kUsual) < 2 ** 35
    const float top = largest(logit, runs);
    if (!(std::abs(top) <= 1e30f)) {
      std::fill_n(weight, runs.count * runs.length, 0.0f);
      return;
    }
    const float center = std::abs(top) > 1e3f ? top : 0.0f;  // between logits this large the difference is exact
    const int32_t shift = static_cast<int32_t>(std::lrint((top - center) * 1.44269504f)) + headroom_;
    exp_runs(logit, runs, weight, center, static_cast<float>((shift - 125) * 0.6931471805599453), kRound - shift);
  }

  // Gradients of the input rows [begin, end) from those of the window rows [first, last), whose shares and means are known.
  void spread(const Tile<scalar_t>& grad_input, const Tile<weight_t>& grad_logit, int64_t begin, int64_t end, int64_t first, int64_t last) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    const int64_t line = lines_.pixels(), lines = last - first, start = x.padding * lines_.unit;
    const auto widen = pairs(3) ? spread_taps<2, 3> : pairs(2) ? spread_taps<2, 2> : spread_taps<0, 0>;
    widen(
        grad_, means_, x.stride, x.dilation, x.kernel, lines * lines_.planes * lanes_ / lines_.unit, lines_.unit,
        (lines * lines_.planes + 1) * padded_, spread_);
    const Runs runs = lines_.runs(grad_input, 1, columns_), all = lines_.runs(grad_input, 1, x.input);
    const int64_t overlap = y.dilation == 1 ? lines_.overlap() : 0;
    const auto narrow = overlap == 1   ? spread_rows<1, scalar_t, weight_t>
                        : overlap == 2 ? spread_rows<2, scalar_t, weight_t>
                        : overlap == 3 ? spread_rows<3, scalar_t, weight_t>
                                       : spread_rows<0, scalar_t, weight_t>;
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      scalar_t* to_input = Lines::start(grad_input, plane, begin);
      weight_t* to_logit = Lines::start(grad_logit, plane, begin);
      const int64_t at = plane * lines * padded_ + start;
      narrow(
          weight_ + plane * (last_ - first_) * line, inputs_[plane], {spread_.share + at, spread_.mean + at, spread_.rest + at}, zeros_, sums_, y,
          first_, first, begin, end, line, padded_, runs, to_input, to_logit, grad_input.row);
      if (columns_ == x.input) continue;
      for (int64_t row = begin; row < end; ++row, to_input += grad_input.row, to_logit += grad_input.row) {  // columns beyond the last window
        for (int64_t run = runs.count == 1 ? 0 : runs.count; run < all.count; ++run) {
          const int64_t from = runs.count == 1 ? runs.length : 0;
          std::fill(to_input + run * all.step + from, to_input + run * all.step + all.length, scalar_t(0));
          std::fill(to_logit + run * all.step + from, to_logit + run * all.step + all.length, weight_t(0));
        }
      }
    }
  }

  const Lines lines_;
  const Window<int64_t> window_;
  int64_t lanes_, padded_, columns_, band_;  // floats in a line of windows and in one of padded pixels; columns that windows see; rows
  int64_t first_ = 0, last_ = 0;             // the input rows that are known
  int32_t headroom_ = 1;                     // a window's weights add up to less than 1, so that no sum overflows
  std::vector<const float*> inputs_;
  std::vector<float> memory_;
  float *weight_, *input_, *total_, *sum_, *totals_, *means_, *guard_, *grad_, *sums_, *zeros_;
  Spread spread_;
};

}  // namespace mmpool_ext
