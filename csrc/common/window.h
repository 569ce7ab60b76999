// Which pixels make up a window and which windows hold a pixel: the one place for that arithmetic, on host and device.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define MMPOOL_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MMPOOL_HOST_DEVICE inline
#endif

namespace mmpool_ext {

// One axis. A window's cells are its taps 0..kernel-1; windows start at -padding.
template <typename index_t>
struct Axis {
  index_t input, output, kernel, stride, padding, dilation;

  MMPOOL_HOST_DEVICE index_t start(index_t window) const { return window * stride - padding; }

  MMPOOL_HOST_DEVICE index_t pixel(index_t window, index_t tap) const { return start(window) + tap * dilation; }

  // The taps [first_tap, end_tap) of a window lie on the input.
  MMPOOL_HOST_DEVICE index_t first_tap(index_t window) const {
    const index_t outside = -start(window);
    return outside <= 0 ? 0 : (outside + dilation - 1) / dilation;
  }

  MMPOOL_HOST_DEVICE index_t end_tap(index_t window) const {
    const index_t taps = (input - start(window) + dilation - 1) / dilation;
    return taps < kernel ? taps : kernel;
  }

  // The windows [first_window, end_window) reach over a pixel; those that hold it have it on a tap.
  MMPOOL_HOST_DEVICE index_t first_window(index_t pixel) const {
    const index_t beyond = pixel + padding - dilation * (kernel - 1);
    return beyond <= 0 ? 0 : (beyond + stride - 1) / stride;
  }

  MMPOOL_HOST_DEVICE index_t end_window(index_t pixel) const {
    const index_t windows = (pixel + padding) / stride + 1;
    return windows < output ? windows : output;
  }

  MMPOOL_HOST_DEVICE bool holds(index_t window, index_t pixel) const { return (pixel - start(window)) % dilation == 0; }
};

template <typename index_t>
struct Window {
  Axis<index_t> y, x;
};

// One (n, c) image of a dense tensor in either memory format.
template <typename scalar_t, typename index_t>
struct Plane {
  scalar_t* data;
  index_t row, column;  // strides

  MMPOOL_HOST_DEVICE scalar_t& operator()(index_t y, index_t x) const { return data[y * row + x * column]; }
};

}  // namespace mmpool_ext
