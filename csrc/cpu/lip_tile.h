// LIP on a tile, in float32, with one exponential an input pixel: sums of weights and of weighted pixels, down the columns first, then along the
// rows; the gradients the other way round.
//
// The exponentials of a band are taken relative to the largest logit of the plane in it, as powers of two (exp_shifted), so that they cost no
// accuracy. A window's sum of them is nothing or tiny where its logits lie far below that; such a window, and any with a NaN or an infinity,
// is done again by the definition. Nothing here depends on ATen.
#pragma once

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

// exp(logit - center) * 2 ** -shift; `low` is where that becomes 0.
template <typename weight_t>
MMPOOL_CLONES void exp_runs(const weight_t* logit, const Runs& runs, float* weight, float center, float low, int32_t bias) {
  for (int64_t run = 0; run < runs.count; ++run) {
    const weight_t* __restrict from = logit + run * runs.step;
    float* __restrict to = weight + run * runs.length;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < runs.length; ++i) {
      const float x = static_cast<float>(from[i]) - center;
      to[i] = exp_shifted(x < low ? low : x, bias);
    }
  }
}

// Down the columns: for the window rows [begin, end) of a plane, total = sum of weight over the taps, sum = the same of weight * input.
// Weight and input begin with the row `first`; rows outside the image are `zeros`. kTaps = 0: any number.
template <int kTaps>
MMPOOL_CLONES void add_rows(
    const float* weight, const float* input, const float* zeros, const Axis<int64_t>& axis, int64_t first, int64_t begin, int64_t end, int64_t pitch,
    int64_t count, float* totals, float* sums, int64_t padded) {
  for (int64_t oy = begin; oy < end; ++oy, totals += padded, sums += padded) {
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

// Along the rows, and divide: windows [0, count) of `unit` floats; window w starts at pixel stride * w. Returns whether some total is no good.
// `guard` is 1 in the lanes that are no window. kStride = 0: any stride and unit.
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
      totals[i] = a;
      means[i] = b / a;
      bad |= a > kTiny ? 0 : 1;
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
      means[i] /= totals[i];
      bad |= totals[i] > kTiny ? 0 : 1;
    }
  }
  return bad;
}

// In place: the output gradient over the window's total, 0 where the window is done again elsewhere or has no part; the mean is 0 then too.
MMPOOL_CLONES void share_windows(float* __restrict grad, float* __restrict means, const float* __restrict totals, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float share = totals[i] > kTiny ? grad[i] / totals[i] : 0.0f, mean = means[i];
    grad[i] = share;
    means[i] = share == 0.0f ? 0.0f : mean;
  }
}

// The reverse of add_taps: give each pixel of the padded lines the share and the mean of the windows that hold it. Windows that overlap take a
// layer each: kTaps / kStride of them, rounded up; in general (kStride = 0) as many as taps.
template <int kStride, int kTaps>
MMPOOL_CLONES void spread_taps(
    const float* __restrict share, const float* __restrict mean, int64_t stride, int64_t dilation, int64_t taps, int64_t count, int64_t unit,
    int64_t layer, float* __restrict shares, float* __restrict means) {
  if constexpr (kStride > 0) {
    for (int tap = 0; tap < kTaps; tap += kStride) {
      float* __restrict to_share = shares + tap / kStride * layer;
      float* __restrict to_mean = means + tap / kStride * layer;
      const float* __restrict a = share - tap / kStride;
      const float* __restrict m = mean - tap / kStride;
      MMPOOL_INDEPENDENT
      for (int64_t i = 0; i < count; ++i) {
        for (int phase = 0; phase < kStride; ++phase) {
          to_share[kStride * i + phase] = tap + phase < kTaps ? a[i] : 0.0f;
          to_mean[kStride * i + phase] = tap + phase < kTaps ? m[i] : 0.0f;
        }
      }
    }
  } else {
    for (int64_t tap = 0; tap < taps; ++tap) {
      std::fill_n(shares + tap * layer, layer, 0.0f);
      std::fill_n(means + tap * layer, layer, 0.0f);
      for (int64_t window = 0; window < count; ++window) {
        const int64_t at = tap * layer + (stride * window + dilation * tap) * unit;
        std::copy_n(share + window * unit, unit, shares + at);
        std::copy_n(mean + window * unit, unit, means + at);
      }
    }
  }
}

// Where the layers of spread_taps lie: `layers` of them, `layer` floats apart, lines of `padded` floats that begin with the window row `first`.
struct Layers {
  const float *shares, *means, *zeros;
  float* rest;  // two lines
  int64_t layers, layer, padded, first;
};

// The reverse of add_rows, for the input rows [begin, end) of a plane: their gradients. Weight and input begin with the row `known`.
// kRows = 0: any number of window rows and layers, whose sums go through `rest`.
template <int kRows, int kLayers, typename scalar_t, typename weight_t>
MMPOOL_CLONES void spread_rows(
    const float* weight, const float* input, const Layers& from, const Axis<int64_t>& axis, int64_t known, int64_t begin, int64_t end, int64_t pitch,
    const Runs& runs, scalar_t* to_input, weight_t* to_logit, int64_t step) {
  constexpr int kAll = kRows * kLayers;
  for (int64_t row = begin; row < end; ++row, to_input += step, to_logit += step) {
    const int64_t first = axis.first_window(row), last = axis.end_window(row);
    const bool held = first < last;
    const float* const weights = held ? weight + (row - known) * pitch : from.zeros;
    const float* const inputs = held ? input + (row - known) * pitch : from.zeros;
    if constexpr (kAll == 0) {
      float* __restrict sum = from.rest;
      float* __restrict product = from.rest + from.padded;
      std::fill_n(from.rest, 2 * from.padded, 0.0f);
      for (int64_t oy = first; oy < last; ++oy) {
        if (!axis.holds(oy, row)) continue;
        for (int64_t layer = 0; layer < from.layers; ++layer) {
          const int64_t at = layer * from.layer + (oy - from.first) * from.padded;
          const float* __restrict a = from.shares + at;
          const float* __restrict m = from.means + at;
          MMPOOL_INDEPENDENT
          for (int64_t i = 0; i < runs.count * runs.length; ++i) {
            sum[i] += a[i];
            product[i] += a[i] * (inputs[i] - m[i]);
          }
        }
      }
    }
    for (int64_t run = 0; run < runs.count; ++run) {
      const int64_t at = run * runs.length;
      const float* __restrict w = weights + at;
      const float* __restrict x = inputs + at;
      scalar_t* __restrict gx = to_input + run * runs.step;
      weight_t* __restrict gl = to_logit + run * runs.step;
      if constexpr (kAll == 0) {
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < runs.length; ++i) {
          gx[i] = static_cast<scalar_t>(w[i] * from.rest[at + i]);
          gl[i] = static_cast<weight_t>(w[i] * from.rest[from.padded + at + i]);
        }
      } else {
        const float* __restrict a[kAll];
        const float* __restrict m[kAll];
        for (int i = 0; i < kAll; ++i) {
          const int64_t oy = first + i / kLayers, line = at + i % kLayers * from.layer + (oy - from.first) * from.padded;
          a[i] = oy < last ? from.shares + line : from.zeros;
          m[i] = oy < last ? from.means + line : from.zeros;
        }
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < runs.length; ++i) {
          float sum = 0.0f, product = 0.0f;
          for (int j = 0; j < kAll; ++j) {
            sum += a[j][i];
            product += a[j][i] * (x[i] - m[j][i]);
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
    const int64_t line = lines.pixels(), rows = std::max<int64_t>(1, kBand / (lines.planes * line));
    band_ = backward ? rows : std::max<int64_t>(1, rows / y.stride);
    const int64_t windows = std::min(y.output, backward ? band_ / y.stride + lines.overlap() + 1 : band_), count = windows * lines.planes;
    const int64_t under = std::min(y.input, (windows - 1) * y.stride + y.dilation * (y.kernel - 1) + 1) * lines.planes * line;
    layers_ = pairs(3) ? 2 : pairs(2) ? 1 : x.kernel;
    memory_.assign(2 * under + (2 + 2 * layers_) * (count + 1) * padded_ + 4 * (count + 1) * lanes_ + 2 * padded_ + padded_ + line, 0.0f);
    float* next = memory_.data();
    const auto take = [&next](int64_t size) { return (next += size) - size; };
    weight_ = take(under), input_ = take(under);
    total_ = take((count + 1) * padded_), sum_ = take((count + 1) * padded_);  // a line more: the last lanes look beyond
    spread_share_ = take(layers_ * (count + 1) * padded_), spread_mean_ = take(layers_ * (count + 1) * padded_);
    totals_ = take(count * lanes_), guard_ = take(count * lanes_);
    means_ = take((count + 1) * lanes_) + lanes_, grad_ = take((count + 1) * lanes_) + lanes_;  // a line more: the first pixels look before
    rest_ = take(2 * padded_), zeros_ = take(padded_ + line);
    for (int64_t i = 0; i < count; ++i) std::fill(guard_ + i * lanes_ + x.output * lines.unit, guard_ + (i + 1) * lanes_, 1.0f);
  }

  // Pool the output rows [begin, end).
  void forward(const Tile<const scalar_t>& input, const Tile<const weight_t>& weight, const Tile<scalar_t>& output, int64_t begin, int64_t end) {
    for (int64_t stop; begin < end; begin = stop) {
      stop = std::min(end, begin + band_);
      const bool good = pool(input, weight, begin, stop);
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
      const bool good = first == last || pool(input, weight, first, last);
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
  static constexpr int64_t kBand = 4096;  // pixels that are worked on at once

  bool pairs(int64_t taps) const { return lines_.unit == 1 && window_.x.stride == 2 && window_.x.kernel == taps && window_.x.dilation == 1; }

  // Totals and means of the window rows [begin, end); false where some are no good.
  bool pool(const Tile<const scalar_t>& input, const Tile<const weight_t>& weight, int64_t begin, int64_t end) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    const auto [first, last] = lines_.rows_under(begin, end);
    const int64_t rows = last - first, line = lines_.pixels(), count = (end - begin) * lines_.planes;
    const auto add = y.kernel == 3 ? add_rows<3> : y.kernel == 2 ? add_rows<2> : add_rows<0>;
    first_ = first, last_ = last;
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      float* const weights = weight_ + plane * rows * line;
      exponentiate(Lines::start(weight, plane, first), lines_.runs(weight, rows, x.input), weights);
      inputs_[plane] = lines_of(lines_, input, plane, first, last, input_ + plane * rows * line);
      const int64_t at = plane * (end - begin) * padded_ + x.padding * lines_.unit;
      add(weights, inputs_[plane], zeros_, y, first, begin, end, line, columns_ * lines_.unit, total_ + at, sum_ + at, padded_);
    }
    const auto reduce = pairs(3) ? add_taps<2, 3> : pairs(2) ? add_taps<2, 2> : add_taps<0, 0>;
    return !reduce(total_, sum_, guard_, x.stride, x.dilation, x.kernel, count * lanes_ / lines_.unit, lines_.unit, totals_, means_);
  }

  void exponentiate(const weight_t* logit, const Runs& runs, float* weight) const {
    const float top = largest(logit, runs);
    if (!(std::abs(top) <= 1e30f)) {
      std::fill_n(weight, runs.count * runs.length, 0.0f);
      return;
    }
    const float center = std::abs(top) > 1e3f ? top : 0.0f;  // between logits this large the difference is exact
    const int32_t shift = static_cast<int32_t>(std::lrint((top - center) * 1.44269504f)) + headroom_;
    exp_runs(logit, runs, weight, center, static_cast<float>((shift - 127) * 0.6931471805599453), kRoundBits + shift - 127);
  }

  // Gradients of the input rows [begin, end) from those of the window rows [first, last), whose shares and means are known.
  void spread(const Tile<scalar_t>& grad_input, const Tile<weight_t>& grad_logit, int64_t begin, int64_t end, int64_t first, int64_t last) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    const int64_t line = lines_.pixels(), lines = last - first, start = x.padding * lines_.unit;
    const auto widen = pairs(3) ? spread_taps<2, 3> : pairs(2) ? spread_taps<2, 2> : spread_taps<0, 0>;
    const int64_t layer = (lines * lines_.planes + 1) * padded_;
    widen(grad_, means_, x.stride, x.dilation, x.kernel, lines * lines_.planes * lanes_ / lines_.unit, lines_.unit, layer, spread_share_, spread_mean_);
    const Runs runs = lines_.runs(grad_input, 1, columns_), all = lines_.runs(grad_input, 1, x.input);
    const bool dense = y.dilation == 1;
    const auto narrow = layers_ == 2 && lines_.overlap() == 2 && dense   ? spread_rows<2, 2, scalar_t, weight_t>
                        : layers_ == 1 && lines_.overlap() == 1 && dense ? spread_rows<1, 1, scalar_t, weight_t>
                        : layers_ == 3 && lines_.overlap() == 3 && dense ? spread_rows<3, 3, scalar_t, weight_t>
                                                                         : spread_rows<0, 0, scalar_t, weight_t>;
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      scalar_t* to_input = Lines::start(grad_input, plane, begin);
      weight_t* to_logit = Lines::start(grad_logit, plane, begin);
      const int64_t at = plane * lines * padded_ + start;
      const Layers from{spread_share_ + at, spread_mean_ + at, zeros_, rest_, layers_, layer, padded_, first};
      narrow(
          weight_ + plane * (last_ - first_) * line, inputs_[plane], from, y, first_, begin, end, line, runs, to_input, to_logit, grad_input.row);
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
  int64_t layers_;                           // of spread_taps
  int64_t first_ = 0, last_ = 0;             // the input rows that are known
  int32_t headroom_ = 1;                     // a window's weights add up to less than 1, so that no sum overflows
  std::vector<const float*> inputs_;
  std::vector<float> memory_;
  float *weight_, *input_, *total_, *sum_, *spread_share_, *spread_mean_, *totals_, *means_, *guard_, *grad_, *rest_, *zeros_;
};

}  // namespace mmpool_ext
