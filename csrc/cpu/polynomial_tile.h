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
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) {
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

// 1 / top; an all-zero window has ratios of 1, `floor`.
MMPOOL_CLONES void invert_top(const float* __restrict top, float* __restrict inverse, float* __restrict floor, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    inverse[i] = 1.0f / (top[i] > 0.0f ? top[i] : 1.0f);
    floor[i] = top[i] > 0.0f ? 0.0f : 1.0f;
  }
}

// Add the weight ratio ** alpha and the weighted ratio; kKeep: and keep the weight and the logarithm of the ratio.
template <bool kKeep>
MMPOOL_CLONES void add_power(
    const float* __restrict cells, const float* __restrict inverse, const float* __restrict floor, const float* __restrict alpha, int64_t count,
    float* __restrict total, float* __restrict sum, float* __restrict weights, float* __restrict logs) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float x = cells[i], ratio = x * inverse[i] + floor[i];
    const float log = ratio <= 0.0f ? kZeroLog : log2_normal(ratio), power = exp2_bounded(alpha[i] * log);
    const bool denormal = static_cast<uint32_t>(as_bits(ratio)) - 1u < 0x007FFFFFu;
    const float weight = denormal ? __builtin_nanf("") : x < 0.0f ? 0.0f : power;
    total[i] += weight;
    sum[i] += weight * ratio;
    if constexpr (kKeep) {
      weights[i] = weight;
      logs[i] = log;
    }
  }
}

// Sums to means in units of the largest pixel, and outputs; a total of 0 says that the window is to be done again, and so does the result.
MMPOOL_CLONES int32_t divide_windows(
    const float* __restrict alpha, const float* __restrict top, float* __restrict totals, float* __restrict means, float* __restrict output, int64_t count) {
  int32_t bad = 0;
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float a = alpha[i], total = totals[i], mean = means[i] / total;
    const bool usual = ((a == 0.0f) | (a >= 1e-20f)) & (total > kTiny) & (mean <= 2.0f) & (top[i] <= 1e30f);  // a NaN among the pixels is in the mean
    means[i] = mean;
    output[i] = mean * top[i];
    totals[i] = usual ? total : 0.0f;
    bad |= usual ? 0 : 1;
  }
  return bad;
}

// In place: grad_output to its share of the total, 0 where the window is done again elsewhere.
MMPOOL_CLONES void share_windows(const float* __restrict totals, float* __restrict grad_output, int64_t count) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float share = grad_output[i] / totals[i];
    grad_output[i] = totals[i] > kTiny ? share : 0.0f;
  }
}

// From a cell's weight and logarithm to its gradient, in place of the weight, and its part of alpha's, in units of the window's largest pixel.
MMPOOL_CLONES void spread_power(
    const float* __restrict cells, const float* __restrict inverse, const float* __restrict floor, const float* __restrict alpha,
    const float* __restrict means, const float* __restrict shares, const float* __restrict logs, int64_t count, float* __restrict weights,
    float* __restrict grad_alpha) {
  MMPOOL_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    const float x = cells[i], ratio = x * inverse[i] + floor[i], a = alpha[i], mean = means[i], share = shares[i], weight = weights[i], log = logs[i];
    const float least = log < kLeastLog ? kLeastLog : log;
    const float power = exp2_bounded((a - 1.0f) * (a < 1.0f ? least : log)), slope = x < 0.0f ? 0.0f : power;
    const float grad = share * (weight * (1.0f + a) - a * mean * slope);
    const float by_log = share * weight * (ratio - mean) * (log < -1e29f ? 0.0f : log);
    weights[i] = share == 0.0f ? 0.0f : grad;
    grad_alpha[i] += share == 0.0f ? 0.0f : by_log;
  }
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

}  // namespace

template <typename scalar_t, typename weight_t>
class PolynomialTile {
  using Rule = Polynomial<float>;

 public:
  PolynomialTile(const Lines& lines, bool backward)
      : lines_(lines), window_(lines.window), cells_(window_.y.kernel * window_.x.kernel), backward_(backward), inputs_(lines.planes) {
    const Axis<int64_t>& y = window_.y;
    pitch_ = window_.x.output * lines.unit;
    const int64_t rows = std::max<int64_t>(1, kBand / (lines.planes * lines.pixels()));
    band_ = backward ? rows : std::max<int64_t>(1, rows / y.stride);
    const int64_t windows = std::min(y.output, backward ? band_ / y.stride + lines.overlap() + 1 : band_), count = windows * lines.planes * pitch_;
    const int64_t under = std::min(y.input, (windows - 1) * y.stride + y.kernel) * lines.planes * lines.pixels();
    const int64_t own = backward ? std::min(y.input, band_) * lines.planes * lines.pixels() : 0;
    memory_.assign((2 + backward) * cells_ * count + 8 * count + under + own, 0.0f);
    float* next = memory_.data();
    const auto take = [&next](int64_t size) { return (next += size) - size; };
    cell_ = take(cells_ * count), weight_ = take(cells_ * count), log_ = take(backward * cells_ * count);
    top_ = take(count), inverse_ = take(count), floor_ = take(count), alpha_ = take(count), totals_ = take(count), means_ = take(count);
    output_ = take(count), grad_alpha_ = take(count);
    input_ = take(under), grad_ = take(own);
  }

  // Pool the output rows [begin, end).
  void forward(const Tile<const scalar_t>& input, const Tile<const weight_t>& alpha, const Tile<scalar_t>& output, int64_t begin, int64_t end) {
    for (int64_t stop; begin < end; begin = stop) {
      stop = std::min(end, begin + band_);
      const bool good = pool(input, alpha, begin, stop);
      store_windows(lines_, output_, pitch_, output, begin, stop);
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
      const int64_t count = (last - first) * lines_.planes * pitch_;
      const bool good = first == last || pool(input, alpha, first, last);
      load_windows(lines_, grad_output, first, last, output_, pitch_);
      share_windows(totals_, output_, count);
      std::fill_n(grad_alpha_, count, 0.0f);
      for (int64_t cell = 0; cell < cells_; ++cell) {
        const int64_t at = cell * count;
        spread_power(cell_ + at, inverse_, floor_, alpha_, means_, output_, log_ + at, count, weight_ + at, grad_alpha_);
      }
      scale_windows(top_, grad_alpha_, count);
      spread(input, grad_input, begin, stop, first, last);
      store_own(grad_alpha, begin, first, last);
      if (good) continue;
      for_each_bad(lines_, totals_, pitch_, first, last, [&](int64_t oy, int64_t ox, int64_t unit) {
        redo_gradients<Rule>(lines_, grad_output, input, alpha, grad_input, grad_alpha, begin, stop, oy, ox, unit);
      });
    }
  }

 private:
  static constexpr int64_t kBand = 2048;  // pixels that are worked on at once

  bool pool(const Tile<const scalar_t>& input, const Tile<const weight_t>& alpha, int64_t begin, int64_t end) {
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
      if (bottom - top < end - begin || right - left < x.output) std::fill_n(cells, (1 + pair) * count, -1.0f);  // outside the image: no weight
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
    load_windows(lines_, alpha, begin, end, alpha_, pitch_);
    std::fill_n(top_, count, 0.0f), std::fill_n(totals_, count, 0.0f), std::fill_n(means_, count, 0.0f);
    for (int64_t cell = 0; cell < cells_; ++cell) raise_top(cell_ + cell * count, top_, count);
    invert_top(top_, inverse_, floor_, count);
    const auto add = backward_ ? add_power<true> : add_power<false>;
    for (int64_t cell = 0; cell < cells_; ++cell) {
      add(cell_ + cell * count, inverse_, floor_, alpha_, count, totals_, means_, weight_ + cell * count, log_ + cell * count);
    }
    return !divide_windows(alpha_, top_, totals_, means_, output_, count);
  }

  // Whether the taps j and j + 1 of the windows [left, right) are neighbours that one loop takes.
  bool pairs_at(int64_t j, int64_t left, int64_t right) const {
    const Axis<int64_t>& x = window_.x;
    return lines_.unit == 1 && x.stride == 2 && j + 1 < x.kernel && windows_with(x, j + 1, 0, x.output) == std::pair(left, right);
  }

  // Those of the windows [begin, end) whose tap lies on the image.
  static std::pair<int64_t, int64_t> windows_with(const Axis<int64_t>& axis, int64_t tap, int64_t begin, int64_t end) {
    return windows_with(axis, tap, begin, end, 0, axis.input);
  }

  // Or on its pixels [from, to).
  static std::pair<int64_t, int64_t> windows_with(const Axis<int64_t>& axis, int64_t tap, int64_t begin, int64_t end, int64_t from, int64_t to) {
    const auto first_at = [&](int64_t pixel) { return (std::max<int64_t>(0, pixel + axis.padding - tap) + axis.stride - 1) / axis.stride; };
    const int64_t first = std::clamp(first_at(from), begin, end);
    return {first, std::clamp(first_at(to), first, end)};
  }

  // Gradients of the input rows [begin, end) from those of the cells of the window rows [first, last).
  void spread(const Tile<const scalar_t>& input, const Tile<scalar_t>& grad_input, int64_t begin, int64_t end, int64_t first, int64_t last) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    const int64_t line = lines_.pixels(), unit = lines_.unit, rows = end - begin, count = (last - first) * lines_.planes * pitch_;
    std::fill_n(grad_, rows * lines_.planes * line, 0.0f);
    const auto add = unit == 1 && x.stride == 1 ? add_cells<1> : unit == 1 && x.stride == 2 ? add_cells<2> : add_cells<0>;
    for (int64_t cell = 0; cell < cells_; ++cell) {
      const int64_t i = cell / x.kernel, j = cell % x.kernel;
      const auto [top, bottom] = windows_with(y, i, first, last, begin, end);
      const auto [left, right] = windows_with(x, j, 0, x.output);
      const bool pair = pairs_at(j, left, right);
      for (int64_t plane = 0; plane < lines_.planes; ++plane) {
        const float* const cells = weight_ + cell * count + (plane * (last - first) + top - first) * pitch_ + left * unit;
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

  // Alpha's gradients of those window rows of [first, last) that start at the input row `begin` or later.
  void store_own(const Tile<weight_t>& grad_alpha, int64_t begin, int64_t first, int64_t last) const {
    int64_t own = first;
    while (own < last && std::max<int64_t>(window_.y.start(own), 0) < begin) ++own;
    const Runs runs = lines_.runs(grad_alpha, 1, window_.x.output);
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      for (int64_t oy = own; oy < last; ++oy) {
        const float* const from = grad_alpha_ + (plane * (last - first) + oy - first) * pitch_;
        copy_runs(from, runs.length, Lines::start(grad_alpha, plane, oy), runs.step, runs.count, runs.length);
      }
    }
  }

  const Lines lines_;
  const Window<int64_t> window_;
  const int64_t cells_;
  const bool backward_;
  int64_t pitch_, band_;          // floats in a line of windows; rows
  int64_t first_ = 0, last_ = 0;  // the input rows that are known
  std::vector<const float*> inputs_;
  std::vector<float> memory_;
  float *cell_, *weight_, *log_, *top_, *inverse_, *floor_, *alpha_, *totals_, *means_, *output_, *grad_alpha_, *input_, *grad_;
};

}  // namespace mmpool_ext
