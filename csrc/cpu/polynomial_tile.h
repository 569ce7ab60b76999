// P-pooling on a tile, in float32: the cells of the windows side by side, one buffer a cell, so that whatever the window, the logarithm and the
// powers run over long rows. A window with denormal ratios, very large values, NaN or an odd alpha is done again by the definition.
// Nothing here depends on ATen.
#pragma once

#include "tile.h"

namespace mmpool_ext {
namespace {

constexpr float kZeroLog = -1e30f;             // the logarithm of 0: any alpha > 1e-20 makes nothing of it, and alpha = 0 makes 1
constexpr float kLeastLog = -19.9315686f;      // ratios below 1e-6 count as that where the slope at 0 is infinite
constexpr float kLn2 = 0.69314718f;
constexpr float kOutside = -2.0f;              // in place of a pixel; its ratio is below 0, also in an all-zero window, where 1 is added to it

// A cell of `rows` lines of windows: pixels clamped to 0. kStride = 0: any stride, and windows of `unit` floats.
template <int kStride>
MMPOOL_CLONES void take_cells(
    const float* input, int64_t line, int64_t stride, float* cells, int64_t pitch, int64_t rows, int64_t count, int64_t unit) {
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
        const float* __restrict from = input + cell * stride * unit;
        float* __restrict to = cells + cell * unit;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < unit; ++i) {
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
    const float* cells, int64_t pitch, float* pixels, int64_t line, int64_t stride, int64_t rows, int64_t count, int64_t unit) {
  for (int64_t row = 0; row < rows; ++row, cells += pitch, pixels += line) {
    if constexpr (kStride > 0) {
      const float* __restrict from = cells;
      float* __restrict to = pixels;
      MMPOOL_INDEPENDENT
      for (int64_t i = 0; i < count; ++i) to[kStride * i] += from[i];
    } else {
      for (int64_t cell = 0; cell < count; ++cell) {
        const float* __restrict from = cells + cell * unit;
        float* __restrict to = pixels + cell * stride * unit;
        MMPOOL_INDEPENDENT
        for (int64_t i = 0; i < unit; ++i) to[i] += from[i];
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
inline bool is_usual(float alpha, float top, float total, float mean) {
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
    const bool usual = is_usual(alpha[i], top[i], total, mean);
    means[i] = mean;
    output[i] = mean * top[i];
    totals[i] = usual ? total : 0.0f;
    bad |= usual ? 0 : 1;
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
    const bool usual = is_usual(alpha[i], top[i], total, mean);
    output[i] = mean * top[i];
    totals[i] = usual ? total : 0.0f;
    bad |= usual ? 0 : 1;
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
    const bool usual = is_usual(a, top, total, mean);
    const float share = grad_output[i] * inverse, gain = 1.0f + a, loss = a * mean;
    float by_alpha = 0.0f, of_top = share * (gain - loss);
    for (int j = kCells - 1; j > 0; --j) {  // undo the ranking, the last step first
      const int64_t at = (j - 1) * kFetch + i;
      const float of_other = share * (gain * weights[at] - loss * slopes[at]);
      const bool swapped = most[j] < cells[j * pitch + i];
      const float grad = swapped ? of_top : of_other;
      of_top = swapped ? of_other : of_top;
      cells[j * pitch + i] = usual ? grad : 0.0f;
      by_alpha += weights[at] * logs[at] * (ratios[at] - mean);
    }
    cells[i] = usual ? of_top : 0.0f;
    grad_alpha[i] = usual ? kLn2 * top * share * by_alpha : 0.0f;
    totals[i] = usual ? total : 0.0f;
    bad |= usual ? 0 : 1;
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

template <typename scalar_t, typename weight_t>
class PolynomialTile {
  using Rule = Polynomial<float>;

 public:
  PolynomialTile(const Lines& lines, bool backward)
      : lines_(lines), window_(lines.window), cells_(window_.y.kernel * window_.x.kernel), inputs_(lines.planes) {
    const Axis<int64_t>& y = window_.y;
    const auto shared_out = [](const Axis<int64_t>& axis) {
      return axis.kernel == 2 && axis.stride == 2 && axis.dilation == 1 && axis.padding == 0 && axis.input == 2 * axis.output;
    };
    shared_out_ = lines.unit == 1 && !lines.channels_last && shared_out(y) && shared_out(window_.x);
    pitch_ = window_.x.output * lines.unit;
    const int64_t rows = lines.band_rows();
    band_ = backward ? rows : std::max<int64_t>(1, rows / y.stride);
    const int64_t windows = std::min(y.output, backward ? band_ / y.stride + lines.overlap() + 1 : band_), count = windows * lines.planes * pitch_;
    const int64_t under = std::min(y.input, (windows - 1) * y.stride + y.dilation * (y.kernel - 1) + 1) * lines.planes * lines.pixels();
    const int64_t own = backward ? std::min(y.input, band_) * lines.planes * lines.pixels() : 0;
    const int64_t blocks = std::max(kFetch, backward ? count : 0);  // or whole bands, where the cells are worked on one after the other
    memory_.assign(cells_ * (count + 4 * blocks) + 10 * count + under + own, 0.0f);
    float* next = memory_.data();
    const auto take = [&next](int64_t size) { return (next += size) - size; };
    cell_ = take(cells_ * count);
    ratio_ = take(cells_ * blocks), weight_ = take(cells_ * blocks), slope_ = take(cells_ * blocks), log_ = take(cells_ * blocks);
    top_ = take(count), inverse_ = take(count), floor_ = take(count), alpha_ = take(count), totals_ = take(count), means_ = take(count);
    output_ = take(count), grad_output_ = take(count), grad_alpha_ = take(count), most_ = take(count);
    input_ = take(under), grad_ = take(own);
  }

  // Pool the output rows [begin, end).
  void forward(const Tile<const scalar_t>& input, const Tile<const weight_t>& alpha, const Tile<scalar_t>& output, int64_t begin, int64_t end) {
    for (int64_t stop; begin < end; begin = stop) {
      stop = std::min(end, begin + band_);
      const int64_t count = unfold(input, alpha, begin, stop);
      const Ahead ahead{after(input, last_), area(), after(alpha, stop), Lines::start(output, 0, begin), 1};
      float* const place = place_of(lines_, output, begin, stop, output_, pitch_);
      const bool good = cells_ == 4   ? pool_blocks<4>(count, ahead, place)
                        : cells_ == 9 ? pool_blocks<9>(count, ahead, place)
                                      : pool(count, place);
      if (place == output_) store_windows(lines_, output_, pitch_, output, begin, stop);
      if (good) continue;
      for_each_bad(lines_, totals_, pitch_, begin, stop, [&](int64_t oy, int64_t ox, int64_t unit) {
        redo_output<Rule>(lines_, input, alpha, output, oy, ox, unit);
      });
    }
  }

  // Gather the gradients of the input rows [begin, end), and of the windows that start in them.
  void backward(
      const Tile<const scalar_t>& grad_output, const Tile<const scalar_t>& input, const Tile<const weight_t>& alpha,
      const Tile<scalar_t>& grad_input, const Tile<weight_t>& grad_alpha, int64_t begin, int64_t end) {
    for (int64_t stop; begin < end; begin = stop) {
      stop = std::min(end, begin + band_);
      const int64_t first = window_.y.first_window(begin), last = std::max(first, window_.y.end_window(stop - 1));
      const int64_t count = first == last ? 0 : unfold(input, alpha, first, last);
      const float* const grads = windows_of(lines_, grad_output, first, last, grad_output_, pitch_);
      const Ahead ahead{after(input, last_), area(), after(alpha, last), Lines::start(grad_input, 0, begin), area()};
      int64_t own = first;  // what belongs to a window belongs to those who have its first row
      while (own < last && std::max<int64_t>(0, window_.y.start(own)) < begin) ++own;
      float* const place = own > first ? grad_alpha_ : place_of(lines_, grad_alpha, first, last, grad_alpha_, pitch_);
      const bool good = cells_ == 4   ? spread_blocks<4>(grads, count, ahead, place)
                        : cells_ == 9 ? spread_blocks<9>(grads, count, ahead, place)
                                      : spread(grads, count, place);
      fold(input, grad_input, begin, stop, first, last);
      if (place == grad_alpha_) store_own(grad_alpha, own, first, last);
      if (good) continue;
      for_each_bad(lines_, totals_, pitch_, first, last, [&](int64_t oy, int64_t ox, int64_t unit) {
        redo_gradients<Rule>(lines_, grad_output, input, alpha, grad_input, grad_alpha, begin, stop, oy, ox, unit);
      });
    }
  }

 private:
  // What to fetch while windows are worked on: the input and exponents that follow, and the memory that will be written.
  struct Ahead {
    const scalar_t* input;
    int64_t area;  // pixels a window
    const weight_t* alpha;
    const scalar_t* target;
    int64_t written;  // values a window

    [[gnu::always_inline]] void fetch_windows(int64_t begin, int64_t count) const {
      fetch(input + begin * area, count * area);
      fetch(alpha + begin, count);
      fetch<true>(target + begin * written, count * written);
    }
  };

  int64_t area() const { return window_.y.stride * window_.x.stride; }

  // What follows in memory on the rows before `row`, or on the tile where it has several planes.
  template <typename T>
  const T* after(const Tile<const T>& tile, int64_t row) const {
    return tile.data + (lines_.planes > 1 ? lines_.planes * tile.unit : row * tile.row);
  }

  // The cells and exponents of the window rows [begin, end); how many windows these are.
  int64_t unfold(const Tile<const scalar_t>& input, const Tile<const weight_t>& alpha, int64_t begin, int64_t end) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    const auto [first, last] = lines_.rows_under(begin, end);
    const int64_t line = lines_.pixels(), unit = lines_.unit, count = (end - begin) * lines_.planes * pitch_;
    first_ = first, last_ = last;
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      inputs_[plane] = lines_of(lines_, input, plane, first, last, input_ + plane * (last - first) * line);
    }
    const auto take = unit > 1 ? take_cells<0> : x.stride == 1 ? take_cells<1> : x.stride == 2 ? take_cells<2> : take_cells<0>;
    for (int64_t cell = 0; cell < cells_; ++cell) {
      const int64_t i = cell / x.kernel, j = cell % x.kernel;
      const auto [top, bottom] = windows_with(y, i, begin, end);
      const auto [left, right] = windows_with(x, j, 0, x.output);
      float* const cells = cell_ + cell * count;
      const bool pair = pairs_at(j, left, right);
      if (bottom - top < end - begin || right - left < x.output) std::fill_n(cells, (1 + pair) * count, kOutside);  // no weight
      for (int64_t plane = 0; plane < lines_.planes; ++plane) {
        const float* const pixels = inputs_[plane] + (y.pixel(top, i) - first) * line + x.pixel(left, j) * unit;
        float* const to = cells + (plane * (end - begin) + top - begin) * pitch_ + left * unit;
        if (pair) {
          take_pairs(pixels, y.stride * line, to, to + count, pitch_, bottom - top, right - left);
        } else {
          take(pixels, y.stride * line, x.stride, to, pitch_, bottom - top, right - left, unit);
        }
      }
      cell += pair;
    }
    alphas_ = windows_of(lines_, alpha, begin, end, alpha_, pitch_);
    return count;
  }

  // Outputs of windows of kCells pixels; false where some are no good.
  template <int kCells>
  bool pool_blocks(int64_t count, const Ahead& ahead, float* output) {
    int32_t bad = 0;
    for (int64_t at = 0; at < count; at += kFetch) {
      const int64_t size = std::min(kFetch, count - at);
      const float* const alpha = alphas_ + at;
      ahead.fetch_windows(at, size);
      rank_cells<kCells>(cell_ + at, count, size, ratio_, top_ + at);
      (all_steep(alpha, size) ? weigh<true> : weigh<false>)(ratio_, alpha, kCells - 1, size, weight_);
      bad |= average_cells<kCells>(ratio_, weight_, alpha, top_ + at, size, totals_ + at, output + at);
    }
    return !bad;
  }

  // And gradients, those of the pixels in place of the cells.
  template <int kCells>
  bool spread_blocks(const float* grads, int64_t count, const Ahead& ahead, float* grad_alpha) {
    int32_t bad = 0;
    for (int64_t at = 0; at < count; at += kFetch) {
      const int64_t size = std::min(kFetch, count - at);
      const float* const alpha = alphas_ + at;
      ahead.fetch_windows(at, size);
      rank_cells<kCells>(cell_ + at, count, size, ratio_, top_ + at);
      (all_steep(alpha, size) ? weigh_and_slope<true> : weigh_and_slope<false>)(ratio_, alpha, kCells - 1, size, weight_, log_, slope_);
      bad |= spread_cells<kCells>(cell_ + at, count, ratio_, weight_, log_, slope_, alpha, grads + at, size, totals_ + at, grad_alpha + at);
    }
    return !bad;
  }

  // Outputs of any windows, one cell after the other; false where some are no good. The largest pixel first again.
  bool pool(int64_t count, float* output) {
    std::copy_n(cell_, count, top_), std::fill_n(totals_, count, 1.0f), std::fill_n(means_, count, 1.0f);
    for (int64_t cell = 1; cell < cells_; ++cell) swap_top(cell_ + cell * count, top_, count);
    invert_top(top_, inverse_, floor_, count);
    for (int64_t cell = 1; cell < cells_; ++cell) add_power(cell_ + cell * count, inverse_, alphas_, count, totals_, means_);
    return !divide_windows(alphas_, top_, totals_, means_, output, count);
  }

  // Gradients of any windows, those of the pixels in place of the cells; false where some are no good.
  bool spread(const float* grads, int64_t count, float* grad_alpha) {
    std::fill_n(top_, count, 0.0f), std::fill_n(totals_, count, 0.0f), std::fill_n(means_, count, 0.0f), std::fill_n(grad_alpha, count, 0.0f);
    for (int64_t cell = 0; cell < cells_; ++cell) raise_top(cell_ + cell * count, top_, count);
    invert_top(top_, inverse_, floor_, count);
    for (int64_t cell = 0; cell < cells_; ++cell) {
      const int64_t at = cell * count;
      add_slope(cell_ + at, inverse_, floor_, alphas_, count, totals_, means_, slope_ + at, log_ + at);
    }
    const bool good = !divide_windows(alphas_, top_, totals_, means_, output_, count);
    share_gradients(totals_, grads, grad_output_, count);
    bound_slopes(alphas_, most_, count);
    for (int64_t cell = 0; cell < cells_; ++cell) {
      const int64_t at = cell * count;
      spread_power(cell_ + at, inverse_, floor_, alphas_, means_, grad_output_, most_, log_ + at, slope_ + at, count, grad_alpha);
    }
    scale_windows(top_, grad_alpha, count);
    return good;
  }

  // Whether the taps j and j + 1 of the windows [left, right) are neighbours that one loop takes.
  bool pairs_at(int64_t j, int64_t left, int64_t right) const {
    const Axis<int64_t>& x = window_.x;
    return lines_.unit == 1 && x.stride == 2 && x.dilation == 1 && j + 1 < x.kernel && windows_with(x, j + 1, 0, x.output) == std::pair(left, right);
  }

  // Those of the windows [begin, end) whose tap lies on the image.
  static std::pair<int64_t, int64_t> windows_with(const Axis<int64_t>& axis, int64_t tap, int64_t begin, int64_t end) {
    return windows_with(axis, tap, begin, end, 0, axis.input);
  }

  // Or on its pixels [from, to).
  static std::pair<int64_t, int64_t> windows_with(const Axis<int64_t>& axis, int64_t tap, int64_t begin, int64_t end, int64_t from, int64_t to) {
    const int64_t offset = axis.padding - tap * axis.dilation;
    const auto first_at = [&](int64_t pixel) { return (std::max<int64_t>(0, pixel + offset) + axis.stride - 1) / axis.stride; };
    const int64_t first = std::clamp(first_at(from), begin, end);
    return {first, std::clamp(first_at(to), first, end)};
  }

  // Gradients of the input rows [begin, end) from those of the cells of the window rows [first, last).
  void fold(const Tile<const scalar_t>& input, const Tile<scalar_t>& grad_input, int64_t begin, int64_t end, int64_t first, int64_t last) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    const int64_t line = lines_.pixels(), unit = lines_.unit, rows = end - begin, count = (last - first) * lines_.planes * pitch_;
    if (shared_out_) {
      for (int64_t plane = 0; plane < lines_.planes; ++plane) {
        const float* const cells = cell_ + plane * (last - first) * pitch_;
        store_pairs(cells, count, pitch_, first, inputs_[plane] + (begin - first_) * line, begin, end, Lines::start(grad_input, plane, begin));
      }
      return;
    }
    std::fill_n(grad_, rows * lines_.planes * line, 0.0f);
    const auto add = unit == 1 && x.stride == 1 ? add_cells<1> : unit == 1 && x.stride == 2 ? add_cells<2> : add_cells<0>;
    for (int64_t cell = 0; cell < cells_; ++cell) {
      const int64_t i = cell / x.kernel, j = cell % x.kernel;
      const auto [top, bottom] = windows_with(y, i, first, last, begin, end);
      const auto [left, right] = windows_with(x, j, 0, x.output);
      const bool pair = pairs_at(j, left, right);
      for (int64_t plane = 0; plane < lines_.planes; ++plane) {
        const float* const cells = cell_ + cell * count + (plane * (last - first) + top - first) * pitch_ + left * unit;
        float* const pixels = grad_ + (plane * rows + y.pixel(top, i) - begin) * line + x.pixel(left, j) * unit;
        if (pair) {
          add_pairs(cells, cells + count, pitch_, pixels, y.stride * line, bottom - top, right - left);
        } else {
          add(cells, pitch_, pixels, y.stride * line, x.stride, bottom - top, right - left, unit);
        }
      }
      cell += pair;
    }
    const Runs runs = lines_.runs(grad_input, 1, x.input);
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      for (int64_t row = begin; row < end; ++row) {
        const bool known = first < last && row >= first_ && row < last_;
        const float* const grad = grad_ + (plane * rows + row - begin) * line;
        store_gradients(known ? inputs_[plane] + (row - first_) * line : grad, grad, runs, Lines::start(grad_input, plane, row));
      }
    }
  }

  // Alpha's gradients of the window rows [own, last), from those of [first, last).
  void store_own(const Tile<weight_t>& grad_alpha, int64_t own, int64_t first, int64_t last) const {
    const Runs runs = lines_.runs(grad_alpha, 1, window_.x.output);
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      const float* const from = grad_alpha_ + (plane * (last - first) + own - first) * pitch_;
      weight_t* const to = Lines::start(grad_alpha, plane, own);
      if (runs.count == 1) {
        copy_runs(from, pitch_, to, grad_alpha.row, last - own, runs.length);
      } else {
        for (int64_t row = 0; row < last - own; ++row) {
          copy_runs(from + row * pitch_, runs.length, to + row * grad_alpha.row, runs.step, runs.count, runs.length);
        }
      }
    }
  }

  const Lines lines_;
  const Window<int64_t> window_;
  const int64_t cells_;
  bool shared_out_;               // every pixel lies in one window, of 2x2, in NCHW
  int64_t pitch_, band_;          // floats in a line of windows; rows
  int64_t first_ = 0, last_ = 0;  // the input rows that are known
  std::vector<const float*> inputs_;
  const float* alphas_ = nullptr;
  std::vector<float> memory_;
  float *cell_, *ratio_, *weight_, *slope_, *log_;
  float *top_, *inverse_, *floor_, *alpha_, *totals_, *means_, *output_, *grad_output_, *grad_alpha_, *most_, *input_, *grad_;
};

}  // namespace mmpool_ext
