// P-pooling on a tile, in float32: the cells of the windows side by side, one buffer a cell, so that whatever the window, the logarithm and the
// powers run over long rows. A window with denormal ratios, very large values, NaN or an odd alpha is done again by the definition.
// Nothing here depends on ATen.
#pragma once

#include "polynomial_kernels.h"

namespace mmpool_ext {

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
    shared_out_ = lines.interleaved == 1 && !lines.channels_last && shared_out(y) && shared_out(window_.x);
    pitch_ = window_.x.output * lines.interleaved;
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
      for_each_bad(lines_, totals_, pitch_, begin, stop, [&](int64_t oy, int64_t ox, int64_t plane) {
        redo_output<Rule>(lines_, input, alpha, output, oy, ox, plane);
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
      for_each_bad(lines_, totals_, pitch_, first, last, [&](int64_t oy, int64_t ox, int64_t plane) {
        redo_gradients<Rule>(lines_, grad_output, input, alpha, grad_input, grad_alpha, begin, stop, oy, ox, plane);
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
    return tile.data + (lines_.planes > 1 ? lines_.planes * tile.plane_step : row * tile.row);
  }

  // The cells and exponents of the window rows [begin, end); how many windows these are.
  int64_t unfold(const Tile<const scalar_t>& input, const Tile<const weight_t>& alpha, int64_t begin, int64_t end) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    const auto [first, last] = lines_.rows_under(begin, end);
    const int64_t line = lines_.pixels(), interleaved = lines_.interleaved, count = (end - begin) * lines_.planes * pitch_;
    first_ = first, last_ = last;
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      inputs_[plane] = lines_of(lines_, input, plane, first, last, input_ + plane * (last - first) * line);
    }
    const auto take = interleaved > 1 ? take_cells<0> : x.stride == 1 ? take_cells<1> : x.stride == 2 ? take_cells<2> : take_cells<0>;
    for (int64_t cell = 0; cell < cells_; ++cell) {
      const int64_t i = cell / x.kernel, j = cell % x.kernel;
      const auto [top, bottom] = windows_with(y, i, begin, end);
      const auto [left, right] = windows_with(x, j, 0, x.output);
      float* const cells = cell_ + cell * count;
      const bool pair = pairs_at(j, left, right);
      if (bottom - top < end - begin || right - left < x.output) std::fill_n(cells, (1 + pair) * count, kOutside);  // no weight
      for (int64_t plane = 0; plane < lines_.planes; ++plane) {
        const float* const pixels = inputs_[plane] + (y.pixel(top, i) - first) * line + x.pixel(left, j) * interleaved;
        float* const to = cells + (plane * (end - begin) + top - begin) * pitch_ + left * interleaved;
        if (pair) {
          take_pairs(pixels, y.stride * line, to, to + count, pitch_, bottom - top, right - left);
        } else {
          take(pixels, y.stride * line, x.stride, to, pitch_, bottom - top, right - left, interleaved);
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
    return lines_.interleaved == 1 && x.stride == 2 && x.dilation == 1 && j + 1 < x.kernel && windows_with(x, j + 1, 0, x.output) == std::pair(left, right);
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
    const int64_t line = lines_.pixels(), interleaved = lines_.interleaved, rows = end - begin, count = (last - first) * lines_.planes * pitch_;
    if (shared_out_) {
      for (int64_t plane = 0; plane < lines_.planes; ++plane) {
        const float* const cells = cell_ + plane * (last - first) * pitch_;
        store_pairs(cells, count, pitch_, first, inputs_[plane] + (begin - first_) * line, begin, end, Lines::start(grad_input, plane, begin));
      }
      return;
    }
    std::fill_n(grad_, rows * lines_.planes * line, 0.0f);
    const auto add = interleaved == 1 && x.stride == 1 ? add_cells<1> : interleaved == 1 && x.stride == 2 ? add_cells<2> : add_cells<0>;
    for (int64_t cell = 0; cell < cells_; ++cell) {
      const int64_t i = cell / x.kernel, j = cell % x.kernel;
      const auto [top, bottom] = windows_with(y, i, first, last, begin, end);
      const auto [left, right] = windows_with(x, j, 0, x.output);
      const bool pair = pairs_at(j, left, right);
      for (int64_t plane = 0; plane < lines_.planes; ++plane) {
        const float* const cells = cell_ + cell * count + (plane * (last - first) + top - first) * pitch_ + left * interleaved;
        float* const pixels = grad_ + (plane * rows + y.pixel(top, i) - begin) * line + x.pixel(left, j) * interleaved;
        if (pair) {
          add_pairs(cells, cells + count, pitch_, pixels, y.stride * line, bottom - top, right - left);
        } else {
          add(cells, pitch_, pixels, y.stride * line, x.stride, bottom - top, right - left, interleaved);
        }
      }
      cell += pair;
    }
    const Runs runs = lines_.runs(grad_input, 1, x.input);
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      for (int64_t row = begin; row < end; ++row) {
        const bool covered = first < last && row >= first_ && row < last_;
        const float* const grad = grad_ + (plane * rows + row - begin) * line;
        store_gradients(covered ? inputs_[plane] + (row - first_) * line : grad, grad, runs, Lines::start(grad_input, plane, row));
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
