// What the fast methods share. A tile is some planes that are pooled together: neighbours in NCHW, a block of channels of one image in
// channels_last. Its rows are worked on in the order of memory, in bands that stay in the cache, all in float32; a window that the method is
// not sure of is done again by the definition in common/definition.h. Nothing here depends on ATen.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "../common/definition.h"
#include "vector.h"

namespace mmpool_ext {

template <typename scalar_t>
struct Tile {
  scalar_t* data;
  int64_t row, column, plane_step;  // strides

  Plane<scalar_t, int64_t> plane(int64_t index) const { return {data + index * plane_step, row, column}; }
};

constexpr int64_t kBand = 4096;  // pixels that are worked on at once

// A band of rows as runs of contiguous values.
struct Runs {
  int64_t count, length, step;
};

// A tile's geometry. A line is a row of one plane in NCHW, of all planes in channels_last; a pixel or window is `interleaved` floats of it.
struct Lines {
  Window<int64_t> window;
  bool channels_last;
  int64_t planes, interleaved;  // of the tile's planes, how many follow each other and how many lie within a line

  Lines(const Window<int64_t>& window, bool channels_last, int64_t units)
      : window(window), channels_last(channels_last), planes(channels_last ? 1 : units), interleaved(channels_last ? units : 1) {}

  int64_t pixels() const { return window.x.input * interleaved; }  // floats in a line

  template <typename scalar_t>
  static scalar_t* start(const Tile<scalar_t>& tile, int64_t plane, int64_t row) {
    return tile.data + plane * tile.plane_step + row * tile.row;
  }

  template <typename scalar_t>
  Runs runs(const Tile<scalar_t>& tile, int64_t rows, int64_t width) const {
    if (channels_last && tile.column != interleaved) return {rows * width, interleaved, tile.column};
    return {1, rows * width * interleaved, 0};
  }

  // Input rows in a band, so that the bands are alike.
  int64_t band_rows() const {
    const int64_t rows = window.y.input, most = std::max<int64_t>(1, kBand / (planes * pixels())), bands = (rows + most - 1) / most;
    return (rows + bands - 1) / bands;
  }

  // The input rows [first, second) under the windows of the rows [begin, end).
  std::pair<int64_t, int64_t> rows_under(int64_t begin, int64_t end) const {
    const Axis<int64_t>& y = window.y;
    return {std::max<int64_t>(0, y.start(begin)), std::min(y.input, y.pixel(end - 1, y.kernel - 1) + 1)};
  }

  // The most windows that share an input row.
  int64_t overlap() const { return window.y.dilation * (window.y.kernel - 1) / window.y.stride + 1; }
};

// A row of `count` values of the `left` that follow each other is as good as one of whole blocks: what is written too much is written over by the
// rows after it.
inline int64_t stretched(int64_t count, int64_t left) { return whole_blocks(count) <= left ? whole_blocks(count) : count; }

constexpr float kTiny = 1e-25f;  // a window whose total is not above it is done again

namespace {

template <typename source_t, typename target_t>
MMPOOL_CLONES void copy_runs(const source_t* source, int64_t source_step, target_t* target, int64_t target_step, int64_t count, int64_t length) {
  if (source_step == length && target_step == length) length *= count, count = count > 0;
  for (int64_t run = 0; run < count; ++run) {
    const source_t* __restrict from = source + run * source_step;
    target_t* __restrict to = target + run * target_step;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < length; ++i) to[i] = static_cast<target_t>(static_cast<float>(from[i]));
  }
}

// The rows [begin, end) of a plane as compact float lines: where they are if they are that already, else copied to `buffer`.
template <typename scalar_t>
const float* lines_of(const Lines& lines, const Tile<const scalar_t>& tile, int64_t plane, int64_t begin, int64_t end, float* buffer) {
  const scalar_t* source = Lines::start(tile, plane, begin);
  const Runs runs = lines.runs(tile, end - begin, lines.window.x.input);
  if constexpr (std::is_same_v<scalar_t, float>) {
    if (runs.count == 1) return source;
  }
  copy_runs(source, runs.step, buffer, runs.length, runs.count, runs.length);
  return buffer;
}

// Rows [begin, end) of windows, `pitch` floats a line of the buffer, to and from it: calls copy(tile's data, buffer, runs, from run to run of the buffer).
template <typename scalar_t, typename F>
void for_windows(const Lines& lines, const Tile<scalar_t>& tile, int64_t begin, int64_t end, int64_t pitch, const F& copy) {
  const int64_t rows = end - begin, width = lines.window.x.output;
  for (int64_t plane = 0; plane < lines.planes; ++plane) {
    const Runs runs = lines.runs(tile, 1, width);
    if (runs.count == 1) {
      copy(Lines::start(tile, plane, begin), plane * rows * pitch, Runs{rows, runs.length, tile.row}, pitch);
    } else {
      for (int64_t row = 0; row < rows; ++row) copy(Lines::start(tile, plane, begin + row), (plane * rows + row) * pitch, runs, runs.length);
    }
  }
}

template <typename scalar_t>
void load_windows(const Lines& lines, const Tile<const scalar_t>& tile, int64_t begin, int64_t end, float* buffer, int64_t pitch) {
  for_windows(lines, tile, begin, end, pitch, [&](const scalar_t* data, int64_t at, const Runs& runs, int64_t step) {
    copy_runs(data, runs.step, buffer + at, step, runs.count, runs.length);
  });
}

// Rows [begin, end) of windows where they are, if they are compact float lines there, else `buffer`.
template <typename scalar_t, typename float_t>
float_t* place_of(const Lines& lines, const Tile<scalar_t>& tile, int64_t begin, int64_t end, float_t* buffer, int64_t pitch) {
  if constexpr (std::is_same_v<std::remove_const_t<scalar_t>, float>) {
    if (lines.runs(tile, 1, lines.window.x.output).count == 1 && tile.row == pitch && (lines.planes == 1 || tile.plane_step == (end - begin) * pitch)) {
      return Lines::start(tile, 0, begin);
    }
  }
  return buffer;
}

// Rows [begin, end) of windows as compact float lines: where they are if they are that already, else copied to `buffer`.
template <typename scalar_t>
const float* windows_of(const Lines& lines, const Tile<const scalar_t>& tile, int64_t begin, int64_t end, float* buffer, int64_t pitch) {
  const float* const place = place_of<const scalar_t, const float>(lines, tile, begin, end, buffer, pitch);
  if (place == buffer) load_windows(lines, tile, begin, end, buffer, pitch);
  return place;
}

template <typename scalar_t>
void store_windows(const Lines& lines, const float* buffer, int64_t pitch, const Tile<scalar_t>& tile, int64_t begin, int64_t end) {
  for_windows(lines, tile, begin, end, pitch, [&](scalar_t* data, int64_t at, const Runs& runs, int64_t step) {
    copy_runs(buffer + at, step, data, runs.step, runs.count, runs.length);
  });
}

// Call f(oy, ox, plane) for every window of a band whose total is no good.
template <typename F>
void for_each_bad(const Lines& lines, const float* totals, int64_t pitch, int64_t begin, int64_t end, const F& f) {
  for (int64_t plane = 0; plane < lines.planes; ++plane) {
    for (int64_t oy = begin; oy < end; ++oy, totals += pitch) {
      for (int64_t i = 0; i < lines.window.x.output * lines.interleaved; ++i) {
        if (!(totals[i] > kTiny)) f(oy, i / lines.interleaved, plane + i % lines.interleaved);
      }
    }
  }
}

// A window's output by the definition.
template <typename Rule, typename scalar_t, typename weight_t, class Gate = Identity>
void redo_output(
    const Lines& lines, const Tile<const scalar_t>& input, const Tile<const weight_t>& weight, const Tile<scalar_t>& output, int64_t oy, int64_t ox,
    int64_t plane, const Gate& gate = {}) {
  const Planes<scalar_t, weight_t, int64_t, Gate> planes{input.plane(plane), weight.plane(plane), gate};
  output.plane(plane)(oy, ox) = static_cast<scalar_t>(measure<Rule, float>(lines.window, planes, oy, ox).output());
}

// Add a window's gradients by the definition to the input rows [begin, end); what is given per window belongs to those who have its first row.
// Behind a gate the weight's gradient is that of the logit.
template <typename Rule, typename scalar_t, typename weight_t, typename grad_t, class Gate = Identity>
void redo_gradients(
    const Lines& lines, const Tile<const scalar_t>& grad_output, const Tile<const scalar_t>& input, const Tile<const weight_t>& weight,
    const Tile<scalar_t>& grad_input, const Tile<grad_t>& grad_weight, int64_t begin, int64_t end, int64_t oy, int64_t ox, int64_t plane,
    const Gate& gate = {}) {
  const Window<int64_t>& window = lines.window;
  const Planes<scalar_t, weight_t, int64_t, Gate> planes{input.plane(plane), weight.plane(plane), gate};
  const auto grads = grad_output.plane(plane);
  const Rule rule = measure<Rule, float>(window, planes, oy, ox);
  const float grad = static_cast<float>(grads(oy, ox));
  for (int64_t i = window.y.first_tap(oy); i < window.y.end_tap(oy); ++i) {
    for (int64_t j = window.x.first_tap(ox); j < window.x.end_tap(ox); ++j) {
      const int64_t y = window.y.pixel(oy, i), x = window.x.pixel(ox, j);
      if (y < begin || y >= end) continue;
      const float value = static_cast<float>(planes.input(y, x));
      const float f = Rule::kWeightPerWindow ? planes.template weight_at<float>(oy, ox) : planes.template weight_at<float>(y, x);
      scalar_t& to_input = grad_input.plane(plane)(y, x);
      to_input = static_cast<scalar_t>(static_cast<float>(to_input) + grad * rule.grad_input(value, f));
      if constexpr (has_weight_per_pixel<Rule>()) {
        grad_t& to_weight = grad_weight.plane(plane)(y, x);
        to_weight = static_cast<grad_t>(static_cast<float>(to_weight) + grad * rule.grad_weight(value, f));
      }
    }
  }
  if constexpr (Rule::kWeightPerWindow) {
    if (std::max<int64_t>(window.y.start(oy), 0) >= begin) {
      grad_weight.plane(plane)(oy, ox) = static_cast<grad_t>(gather_window<Rule, float>(window, planes, grads, rule, oy, ox));
    }
  }
}

}  // namespace
}  // namespace mmpool_ext
