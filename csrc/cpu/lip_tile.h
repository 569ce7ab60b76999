// LIP on a tile, in float32, with one exponential an input pixel: sums of weights and of weighted pixels, down the columns first, then along the
// rows; the gradients the other way round.
//
// The exponentials are scaled by a power of two, so that no sum overflows: a fixed one where no logit of the band is large, which is found out on the
// way, else one by the plane's largest logit in the band. That costs no accuracy. A window whose sum of them is nothing or tiny for all that, and any
// with a NaN or an infinity, is done again by the definition. Nothing here depends on ATen.
#pragma once

#include "lip_kernels.h"

namespace mmpool_ext {

// kGated: weight is the response that a gate makes the logit of, and the gradient by it is that of the normalized response, in float32. The gate
// bounds its logits, so nothing is looked for first. Rule: what a window is that is done again, with the exponential of f as weight.
template <typename scalar_t, typename weight_t, bool kGated = false, template <typename> class Rule = Lip>
class LipTile {
 public:
  using grad_t = std::conditional_t<kGated, float, weight_t>;

  LipTile(const Lines& lines, bool backward) : lines_(lines), window_(lines.window), inputs_(lines.planes) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    lanes_ = (x.output + x.dilation * (x.kernel - 1) / x.stride) * lines.interleaved;
    padded_ = x.stride * lanes_;
    columns_ = std::min(x.input, padded_ / lines.interleaved - x.padding);
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
    for (int64_t i = 0; i < count; ++i) std::fill(guard_ + i * lanes_ + x.output * lines.interleaved, guard_ + (i + 1) * lanes_, 1.0f);
  }

  // The gates of the tile's channels: those of one image, from the channel c on.
  void set_gates(const Gates<float>& gates, int64_t n, int64_t c) {
    gates_.clear();
    for (int64_t i = 0; i < lines_.planes * lines_.interleaved; ++i) gates_.push_back(gates.at(n, c + i));
    width_ = lines_.channels_last ? lines_.interleaved : kFetch;
    gate_lines_.resize(3 * width_ * lines_.planes);
    float* line = gate_lines_.data();
    for (int64_t plane = 0; plane < lines_.planes; ++plane, line += 3 * width_) {
      for (int64_t i = 0; i < width_; ++i) {
        const Gate<float>& gate = gates_[lines_.channels_last ? i : plane];
        line[i] = gate.mean, line[width_ + i] = gate.scale, line[2 * width_ + i] = gate.bias;
      }
    }
  }

  // Pool the output rows [begin, end).
  void forward(const Tile<const scalar_t>& input, const Tile<const weight_t>& weight, const Tile<scalar_t>& output, int64_t begin, int64_t end) {
    for (int64_t stop; begin < end; begin = stop) {
      stop = std::min(end, begin + band_);
      const bool good = pool(input, weight, begin, stop, [&](int64_t plane) { return std::array<Target, 2>{target(output, plane, begin, 1)}; });
      store_windows(lines_, means_, lanes_, output, begin, stop);
      if (good) continue;
      for_each_bad(lines_, totals_, lanes_, begin, stop, [&](int64_t oy, int64_t ox, int64_t plane) {
        redo_output<Rule<float>>(lines_, input, weight, output, oy, ox, plane, gate(plane));
      });
    }
  }

  // Gather the gradients of the input rows [begin, end).
  void backward(
      const Tile<const scalar_t>& grad_output, const Tile<const scalar_t>& input, const Tile<const weight_t>& weight,
      const Tile<scalar_t>& grad_input, const Tile<grad_t>& grad_logit, int64_t begin, int64_t end) {
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
      if (!good) {
        for_each_bad(lines_, totals_, lanes_, first, last, [&](int64_t oy, int64_t ox, int64_t plane) {
          redo_gradients<Rule<float>>(lines_, grad_output, input, weight, grad_input, grad_logit, begin, stop, oy, ox, plane, gate(plane));
        });
      }
      if constexpr (kGated) {
        for (int64_t plane = 0; plane < lines_.planes; ++plane) {
          const weight_t* const response = Lines::start(weight, plane, begin);
          float* const grad = Lines::start(grad_logit, plane, begin);
          for_gate_rows(weight, plane, stop - begin, [&](int64_t at, int64_t, int64_t rows, int64_t width, int64_t step, const float* line) {
            multiply_slope(response + at, grad + at, rows, width, step, line, line + width_, line + 2 * width_, gates_[0].gate_scale);
          });
        }
      }
    }
  }

 private:
  auto gate(int64_t plane) const {
    if constexpr (kGated) return gates_[plane];
    else return Identity{};
  }

  // Call f(at, compact, rows, width, step, line) for pieces of `rows` of a plane's rows, each `rows` rows of `width` values with a gate each, whose
  // coefficients begin at `line`: they lie `at` in the tile and `compact` in compact lines.
  template <typename F>
  void for_gate_rows(const Tile<const weight_t>& tile, int64_t plane, int64_t rows, const F& f) const {
    const float* const line = gate_lines_.data() + 3 * width_ * plane;
    const int64_t pixels = rows * window_.x.input;
    if (lines_.channels_last) return f(0, 0, pixels, width_, tile.column, line);
    const int64_t whole = pixels / width_ * width_;
    f(0, 0, pixels / width_, width_, width_, line);
    f(whole, whole, 1, pixels - whole, 0, line);
  }

  bool pairs(int64_t taps) const { return lines_.interleaved == 1 && window_.x.stride == 2 && window_.x.kernel == taps && window_.x.dilation == 1; }

  // `rows` of a tile's rows from `row` on for each row of windows; none where they are not one piece of memory.
  template <typename T>
  Target target(const Tile<T>& tile, int64_t plane, int64_t row, int64_t rows) const {
    if (lines_.channels_last && tile.column != lines_.interleaved) return {};
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
      const weight_t* const from = Lines::start(weight, plane, first);
      const scalar_t* const beside = Lines::start(input, plane, first);
      if constexpr (kGated) {
        for_gate_rows(weight, plane, rows, [&](int64_t at, int64_t compact, int64_t count, int64_t width, int64_t step, const float* gates) {
          exp_gated(
              from + at, beside + at, rows * weight.row, count, width, step, weights + compact, width, gates, gates + width_, gates + 2 * width_,
              gates_[0].gate_scale, kRound - headroom_);
        });
      } else {
        exponentiate(from, beside, rows * weight.row, runs, weights);
      }
      inputs_[plane] = lines_of(lines_, input, plane, first, last, input_ + plane * rows * line);
      const int64_t at = plane * (end - begin) * padded_ + x.padding * lines_.interleaved;
      add(weights, inputs_[plane], zeros_, y, first, begin, end, line, columns_ * lines_.interleaved, total_ + at, sum_ + at, padded_, targets(plane));
    }
    const auto reduce = pairs(3) ? add_taps<2, 3> : pairs(2) ? add_taps<2, 2> : add_taps<0, 0>;
    return !reduce(total_, sum_, guard_, x.stride, x.dilation, x.kernel, count * lanes_ / lines_.interleaved, lines_.interleaved, totals_, means_);
  }

  void exponentiate(const weight_t* logit, const scalar_t* input, int64_t ahead, const Runs& runs, float* weight) const {
    if (exp_safe(logit, input, ahead, runs, weight, kRound - 35 - headroom_)) return;  // exp(kSafeLogit) < 2 ** 35
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
  void spread(const Tile<scalar_t>& grad_input, const Tile<grad_t>& grad_logit, int64_t begin, int64_t end, int64_t first, int64_t last) {
    const Axis<int64_t>&x = window_.x, &y = window_.y;
    const int64_t line = lines_.pixels(), lines = last - first, start = x.padding * lines_.interleaved;
    const auto widen = pairs(3) ? spread_taps<2, 3> : pairs(2) ? spread_taps<2, 2> : spread_taps<0, 0>;
    widen(
        grad_, means_, x.stride, x.dilation, x.kernel, lines * lines_.planes * lanes_ / lines_.interleaved, lines_.interleaved,
        (lines * lines_.planes + 1) * padded_, spread_);
    const Runs runs = lines_.runs(grad_input, 1, columns_), all = lines_.runs(grad_input, 1, x.input);
    const int64_t overlap = y.dilation == 1 ? lines_.overlap() : 0;
    constexpr bool kIsInput = Rule<float>::kWeightIsInput;
    const auto narrow = overlap == 1   ? spread_rows<1, kIsInput, scalar_t, grad_t>
                        : overlap == 2 ? spread_rows<2, kIsInput, scalar_t, grad_t>
                        : overlap == 3 ? spread_rows<3, kIsInput, scalar_t, grad_t>
                                       : spread_rows<0, kIsInput, scalar_t, grad_t>;
    for (int64_t plane = 0; plane < lines_.planes; ++plane) {
      scalar_t* to_input = Lines::start(grad_input, plane, begin);
      grad_t* to_logit = Lines::start(grad_logit, plane, begin);
      const int64_t at = plane * lines * padded_ + start;
      narrow(
          weight_ + plane * (last_ - first_) * line, inputs_[plane], {spread_.share + at, spread_.mean + at, spread_.correction + at}, zeros_, sums_, y,
          first_, first, begin, end, line, padded_, runs, to_input, to_logit, grad_input.row);
      if (columns_ == x.input) continue;
      for (int64_t row = begin; row < end; ++row, to_input += grad_input.row, to_logit += grad_input.row) {  // columns beyond the last window
        for (int64_t run = runs.count == 1 ? 0 : runs.count; run < all.count; ++run) {
          const int64_t from = runs.count == 1 ? runs.length : 0;
          std::fill(to_input + run * all.step + from, to_input + run * all.step + all.length, scalar_t(0));
          std::fill(to_logit + run * all.step + from, to_logit + run * all.step + all.length, grad_t(0));
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
  std::vector<Gate<float>> gates_;  // of each of the tile's channels
  std::vector<float> gate_lines_;   // for each plane, `width_` means, scales and biases
  int64_t width_ = 0;
  float *weight_, *input_, *total_, *sum_, *totals_, *means_, *guard_, *grad_, *sums_, *zeros_;
  Spread spread_;
};

}  // namespace mmpool_ext
