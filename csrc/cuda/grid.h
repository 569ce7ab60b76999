// From block and thread to a place in a tensor, without a division at run time.
#pragma once

#include <cstdint>

#include "../common/window.h"

namespace mmpool_ext::cuda {

// Division by a number known at launch: one multiplication (Granlund and Montgomery, PLDI 1994). For dividends below 2^31.
struct Divisor {
  uint32_t divisor = 1, magic = 1, shift = 0;

  explicit Divisor(uint32_t by = 1) : divisor(by) {
    while ((uint64_t{1} << shift) < by) ++shift;
    magic = static_cast<uint32_t>((uint64_t{1} << 32) * ((uint64_t{1} << shift) - by) / by + 1);
  }
  MMPOOL_HOST_DEVICE uint32_t quotient(uint32_t dividend) const {
    return (static_cast<uint32_t>((uint64_t{dividend} * magic) >> 32) + dividend) >> shift;
  }
};

struct Thread {
  uint32_t x, y, z;
};

// One pixel or window of the image (n, c).
struct Place {
  int64_t n, c;
  int row, column;
};

// Strides of a dense (N, C, H, W) tensor in elements.
struct Strides {
  int64_t n, c, row, column;

  Strides(bool channels_last, int64_t channels, int64_t height, int64_t width)
      : n(channels * height * width), c(channels_last ? 1 : height * width), row(channels_last ? channels * width : width),
        column(channels_last ? channels : 1) {}
};

// The most threads of a block along each axis, fastest first.
struct Shape {
  uint32_t most[3];
};

// Threads over (n, c, row, column), fastest first: channels, columns, rows in channels_last; columns, rows, channels otherwise. Along the
// fastest axis a thread has `lanes` neighbours.
struct Grid {
  static constexpr uint32_t most = 256;  // threads of a block

  bool channels_last;
  uint32_t lanes;
  uint32_t size[3];   // threads that have work, along each axis
  uint32_t block[3];  // threads of a block, along each axis
  Divisor tiles[3];
  int64_t blocks;

  Grid(bool channels_last, uint32_t lanes, const Shape& shape, int64_t batch, int64_t channels, int64_t rows, int64_t columns)
      : channels_last(channels_last), lanes(lanes), blocks(batch) {
    const int64_t fastest = ((channels_last ? channels : columns) + lanes - 1) / lanes;
    const int64_t sizes[3] = {fastest, channels_last ? columns : rows, channels_last ? rows : channels};
    uint32_t left = most;
    for (int axis = 0; axis < 3; ++axis) {
      const uint32_t limit = shape.most[axis] < left ? shape.most[axis] : left;
      const int64_t count = (sizes[axis] + limit - 1) / limit;
      size[axis] = static_cast<uint32_t>(sizes[axis]);
      block[axis] = static_cast<uint32_t>((sizes[axis] + count - 1) / count);  // all tiles of about one size
      tiles[axis] = Divisor(static_cast<uint32_t>(count));
      blocks *= count;
      left /= block[axis];
    }
  }

  MMPOOL_HOST_DEVICE uint32_t threads() const { return block[0] * block[1] * block[2]; }
  MMPOOL_HOST_DEVICE uint32_t rank(Thread thread) const { return (thread.z * block[1] + thread.y) * block[0] + thread.x; }
  MMPOOL_HOST_DEVICE bool owns(Thread thread) const { return thread.x < block[0] && thread.y < block[1] && thread.z < block[2]; }

  // The first place of a thread; false where there is none.
  MMPOOL_HOST_DEVICE bool locate(uint32_t at, Thread thread, Place& place) const {
    const uint32_t after_x = tiles[0].quotient(at), after_y = tiles[1].quotient(after_x), n = tiles[2].quotient(after_y);
    const uint32_t x = (at - after_x * tiles[0].divisor) * block[0] + thread.x;
    const uint32_t y = (after_x - after_y * tiles[1].divisor) * block[1] + thread.y;
    const uint32_t z = (after_y - n * tiles[2].divisor) * block[2] + thread.z;
    place = channels_last ? Place{n, int64_t{x} * lanes, static_cast<int>(z), static_cast<int>(y)}
                          : Place{n, z, static_cast<int>(y), static_cast<int>(x * lanes)};
    return x < size[0] && y < size[1] && z < size[2];
  }
};

// The places of a block and those next to them, one row further down and one column further right, numbered as slots.
struct Halo {
  uint32_t size[2];
  Divisor along[2];
  uint32_t slots, next_row, next_column;

  explicit Halo(const Grid& grid)
      : size{grid.block[0] + (grid.channels_last ? 0 : 1), grid.block[1] + 1}, along{Divisor(size[0]), Divisor(size[1])},
        slots(size[0] * size[1] * (grid.block[2] + (grid.channels_last ? 1 : 0))), next_row(grid.channels_last ? size[0] * size[1] : size[0]),
        next_column(grid.channels_last ? size[0] : 1) {}

  MMPOOL_HOST_DEVICE uint32_t slot(Thread thread) const { return (thread.z * size[1] + thread.y) * size[0] + thread.x; }
  MMPOOL_HOST_DEVICE Thread thread(uint32_t slot) const {
    const uint32_t row = along[0].quotient(slot), plane = along[1].quotient(row);
    return {slot - row * size[0], row - plane * size[1], plane};
  }
};

}  // namespace mmpool_ext::cuda
