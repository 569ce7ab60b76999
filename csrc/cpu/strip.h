// Rows of several planes as one float buffer in which the taps of neighbouring windows lie side by side, whatever stride and memory format.
//
// In NCHW a row's padded columns are sorted by their remainder modulo the stride: tap j of the windows 0, 1, 2... is then contiguous; some
// planes follow each other, so that short rows are worth a loop. In channels_last a block of channels is contiguous as it is. Either way a
// pooling along the row is, for each group and tap, `for (lane) out[group * lanes + lane] += in[group * step + taps[tap] + lane]`.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "../common/window.h"
#include "vector.h"

namespace mmpool_ext {

// Planes that are pooled together: neighbours in NCHW, a block of channels of one image in channels_last.
template <typename scalar_t>
struct Tile {
  scalar_t* data;
  int64_t row, column, unit;  // strides; unit: from plane to plane

  Plane<scalar_t, int64_t> plane(int64_t index) const { return {data + index * unit, row, column}; }
};

struct Strip {
  Axis<int64_t> axis;
  bool channels_last;
  int64_t units;                  // planes
  int64_t pitch;                  // channels_last: from column to column. NCHW: from one remainder to the next
  int64_t groups, lanes, step;    // channels_last: a window is a group. NCHW: a plane is
  int64_t length;                 // floats in a buffer of input columns
  std::vector<int64_t> taps;
  std::vector<std::pair<int64_t, int64_t>> empty;  // runs [first, last) of a buffer that no input column is loaded into
  std::vector<std::pair<int64_t, int64_t>> unseen;  // runs of input columns that no window looks at

  Strip(const Axis<int64_t>& axis, bool channels_last, int64_t units) : axis(axis), channels_last(channels_last), units(units) {
    const int64_t reach = axis.dilation * (axis.kernel - 1);
    if (channels_last) {
      pitch = lanes = whole_blocks(units);
      groups = axis.output;
      step = axis.stride * pitch;
      length = std::max((axis.output - 1) * axis.stride + reach + 1, axis.input + axis.padding) * pitch;
    } else {
      lanes = whole_blocks(axis.output);
      groups = units;
      pitch = whole_blocks(std::max(axis.output + reach / axis.stride, (axis.input + axis.padding - 1) / axis.stride + 1));
      step = axis.stride * pitch;
      length = units * step + whole_blocks(reach / axis.stride);  // the last lanes, which are no windows, look beyond
    }
    for (int64_t tap = 0; tap < axis.kernel; ++tap) taps.push_back(offset(tap * axis.dilation - axis.padding, 0));
    std::vector<bool> loaded(length, false), used(length, false);
    for (int64_t unit = 0; unit < units; ++unit) {
      for (int64_t x = 0; x < axis.input; ++x) loaded[offset(x, unit)] = true;
      for (int64_t ox = 0; ox < axis.output; ++ox) {
        for (int64_t tap = axis.first_tap(ox); tap < axis.end_tap(ox); ++tap) used[offset(axis.pixel(ox, tap), unit)] = true;
      }
    }
    empty = runs_without(loaded);
    for (int64_t i = 0; i < length; ++i) used[i] = used[i] || !loaded[i];
    unseen = runs_without(used);
  }

  // Where the input column x, padding included, of a plane lies in a buffer.
  int64_t offset(int64_t x, int64_t unit) const {
    const int64_t padded = x + axis.padding;
    return channels_last ? padded * pitch + unit : unit * step + padded % axis.stride * pitch + padded / axis.stride;
  }

  int64_t output_offset(int64_t ox, int64_t unit) const { return channels_last ? ox * lanes + unit : unit * lanes + ox; }
  int64_t outputs() const { return groups * lanes; }

  static std::vector<std::pair<int64_t, int64_t>> runs_without(const std::vector<bool>& marked) {
    std::vector<std::pair<int64_t, int64_t>> runs;
    for (size_t i = 0; i < marked.size(); ++i) {
      if (marked[i]) continue;
      if (runs.empty() || runs.back().second != static_cast<int64_t>(i)) runs.emplace_back(i, i);
      ++runs.back().second;
    }
    return runs;
  }
};

inline void fill(const std::vector<std::pair<int64_t, int64_t>>& runs, float* buffer, float value) {
  for (const auto& [first, last] : runs) std::fill(buffer + first, buffer + last, value);
}

namespace {

// Ask for what comes `ahead`: planes side by side are too many short streams for the hardware to see through.
template <typename scalar_t>
inline void prefetch(const scalar_t* from, int64_t ahead, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(scalar_t))) __builtin_prefetch(from + ahead + i);
}

// Pairs of neighbouring columns to two buffers, and back; `count` columns of each plane.
template <typename scalar_t>
MMPOOL_CLONES void split_pairs(
    const scalar_t* source, int64_t source_step, float* first, float* second, int64_t step, int64_t planes, int64_t count) {
  for (int64_t plane = 0; plane < planes; ++plane) {
    const scalar_t* __restrict from = source + plane * source_step;
    float* __restrict even = first + plane * step;
    float* __restrict odd = second + plane * step;
    prefetch(from, 2 * count, count);
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count / 2; ++i) {
      even[i] = static_cast<float>(from[2 * i]);
      odd[i] = static_cast<float>(from[2 * i + 1]);
    }
    if (count % 2) even[count / 2] = static_cast<float>(from[count - 1]);
  }
}

template <typename scalar_t>
MMPOOL_CLONES void join_pairs(
    const float* first, const float* second, int64_t step, scalar_t* target, int64_t target_step, int64_t planes, int64_t count) {
  for (int64_t plane = 0; plane < planes; ++plane) {
    const float* __restrict even = first + plane * step;
    const float* __restrict odd = second + plane * step;
    scalar_t* __restrict to = target + plane * target_step;
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count / 2; ++i) {
      to[2 * i] = static_cast<scalar_t>(even[i]);
      to[2 * i + 1] = static_cast<scalar_t>(odd[i]);
    }
    if (count % 2) to[count - 1] = static_cast<scalar_t>(even[count / 2]);
  }
}

// `rows` runs of `count` values; the same will be asked for from `ahead` next, if that is not 0.
template <typename source_t, typename target_t>
MMPOOL_CLONES void copy_runs(
    const source_t* source, int64_t source_step, target_t* target, int64_t target_step, int64_t rows, int64_t count, int64_t ahead = 0) {
  if (count % kBlock == 0) {
    for (int64_t row = 0; row < rows; ++row) {
      const source_t* __restrict from = source + row * source_step;
      target_t* __restrict to = target + row * target_step;
      if (ahead != 0) prefetch(from, ahead, count);
      for (int64_t block = 0; block < count; block += kBlock) {
        for (int64_t i = block; i < block + kBlock; ++i) to[i] = static_cast<target_t>(static_cast<float>(from[i]));
      }
    }
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    const source_t* __restrict from = source + row * source_step;
    target_t* __restrict to = target + row * target_step;
    if (ahead != 0) prefetch(from, ahead, count);
    MMPOOL_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<target_t>(static_cast<float>(from[i]));
  }
}

// Fill the input columns of a buffer from row y of each plane; the rest keeps what it holds.
template <typename scalar_t>
void load(const Strip& strip, const Tile<const scalar_t>& tile, int64_t y, float* buffer) {
  const scalar_t* source = tile.data + y * tile.row;
  const int64_t width = strip.axis.input, stride = strip.axis.stride;
  if (strip.channels_last) {
    copy_runs(source, tile.column, buffer + strip.offset(0, 0), strip.pitch, width, strip.units, tile.row);
  } else if (stride == 1) {
    copy_runs(source, tile.unit, buffer + strip.offset(0, 0), strip.step, strip.units, width, 2 * width);
  } else if (stride == 2) {
    split_pairs(source, tile.unit, buffer + strip.offset(0, 0), buffer + strip.offset(1, 0), strip.step, strip.units, width);
  } else {
    for (int64_t unit = 0; unit < strip.units; ++unit) {
      for (int64_t x = 0; x < width; ++x) buffer[strip.offset(x, unit)] = static_cast<float>(source[unit * tile.unit + x]);
    }
  }
}

// Write row y of each plane from the input columns of a buffer.
template <typename scalar_t>
void store(const Strip& strip, const float* buffer, const Tile<scalar_t>& tile, int64_t y) {
  scalar_t* target = tile.data + y * tile.row;
  const int64_t width = strip.axis.input, stride = strip.axis.stride;
  if (strip.channels_last) {
    copy_runs(buffer + strip.offset(0, 0), strip.pitch, target, tile.column, width, strip.units);
  } else if (stride == 1) {
    copy_runs(buffer + strip.offset(0, 0), strip.step, target, tile.unit, strip.units, width);
  } else if (stride == 2) {
    join_pairs(buffer + strip.offset(0, 0), buffer + strip.offset(1, 0), strip.step, target, tile.unit, strip.units, width);
  } else {
    for (int64_t unit = 0; unit < strip.units; ++unit) {
      for (int64_t x = 0; x < width; ++x) target[unit * tile.unit + x] = static_cast<scalar_t>(buffer[strip.offset(x, unit)]);
    }
  }
}

// The same for a row of windows.
template <typename scalar_t>
void load_output(const Strip& strip, const Tile<const scalar_t>& tile, int64_t oy, float* buffer) {
  const bool last = strip.channels_last;
  copy_runs(tile.data + oy * tile.row, last ? tile.column : tile.unit, buffer, strip.lanes, strip.groups, last ? strip.units : strip.axis.output);
}

template <typename scalar_t>
void store_output(const Strip& strip, const float* buffer, const Tile<scalar_t>& tile, int64_t oy) {
  const bool last = strip.channels_last;
  copy_runs(buffer, strip.lanes, tile.data + oy * tile.row, last ? tile.column : tile.unit, strip.groups, last ? strip.units : strip.axis.output);
}

}  // namespace
}  // namespace mmpool_ext
