// How the neighbouring windows of one thread, its lanes, lie in memory: along the channels (channels_last) or along a row (contiguous).
// Both give the same to the kernels: the cells of each lane's window (a patch), and the 2 x 2 pixels at twice its place (quads).
#pragma once

#include <cstdint>
#include <cstring>

#include "../common/window.h"

#ifdef __CUDACC__
#define MMPOOL_UNROLL _Pragma("unroll")
#else
#define MMPOOL_UNROLL
#endif

namespace mmpool_ext::cuda::fixed {

MMPOOL_HOST_DEVICE bool within(int size, int at) { return static_cast<unsigned>(at) < static_cast<unsigned>(size); }

// LENGTH neighbours in 32-bit registers. ALIGNED promises that they come in whole pieces, each at a multiple of its size: one access a piece.
template <class T, int LENGTH, int PIECE = LENGTH>
struct alignas(16) Run {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4);
  static constexpr int per_word = 4 / sizeof(T), words_of_piece = PIECE / per_word;
  static constexpr int alignment = words_of_piece < 4 ? 4 * words_of_piece : 16;
  uint32_t words[LENGTH / per_word];

  static MMPOOL_HOST_DEVICE Run filled(float value) {
    Run run;
    run.set(0, value);
    if (per_word == 2) run.words[0] = (run.words[0] & 0xffff) * 0x10001u;
    MMPOOL_UNROLL
    for (int i = 1; i < LENGTH / per_word; ++i) run.words[i] = run.words[0];
    return run;
  }
  MMPOOL_HOST_DEVICE T raw(int i) const {
    T value;
    if constexpr (per_word == 1) {
      memcpy(&value, &words[i], 4);
    } else {
      const uint16_t half = static_cast<uint16_t>(words[i / 2] >> 16 * (i % 2));
      memcpy(&value, &half, 2);
    }
    return value;
  }
  MMPOOL_HOST_DEVICE float operator[](int i) const { return static_cast<float>(raw(i)); }
  MMPOOL_HOST_DEVICE void set_raw(int i, T value) {
    if constexpr (per_word == 1) {
      memcpy(&words[i], &value, 4);
    } else {
      uint16_t half;
      memcpy(&half, &value, 2);
      words[i / 2] = i % 2 ? (words[i / 2] & 0xffff) | uint32_t{half} << 16 : (words[i / 2] & 0xffff0000) | half;
    }
  }
  MMPOOL_HOST_DEVICE void set(int i, float value) { set_raw(i, static_cast<T>(value)); }

  // Reads the first `count`; the rest keep their value. Count may be negative.
  template <bool ALIGNED>
  MMPOOL_HOST_DEVICE void load(const T* from, int count) {
    MMPOOL_UNROLL
    for (int start = 0; start < LENGTH; start += PIECE) {
      if constexpr (ALIGNED) {
        if (start < count)
          memcpy(&words[start / per_word], __builtin_assume_aligned(static_cast<const void*>(from + start), alignment), PIECE * sizeof(T));
      } else {
        MMPOOL_UNROLL
        for (int i = start; i < start + PIECE; ++i) {
          if (i < count) set_raw(i, from[i]);
        }
      }
    }
  }
  template <bool ALIGNED>
  MMPOOL_HOST_DEVICE void store(T* to, int count) const {
    MMPOOL_UNROLL
    for (int start = 0; start < LENGTH; start += PIECE) {
      if constexpr (ALIGNED) {
        if (start < count)
          memcpy(__builtin_assume_aligned(static_cast<void*>(to + start), alignment), &words[start / per_word], PIECE * sizeof(T));
      } else {
        MMPOOL_UNROLL
        for (int i = start; i < start + PIECE; ++i) {
          if (i < count) to[i] = raw(i);
        }
      }
    }
  }
};

// One image (n, c) or (n, c .. c + lanes).
template <class T>
struct Image {
  T* first;
  int row, column;  // strides: an image has fewer than 2^31 elements here
  int height, width;

  MMPOOL_HOST_DEVICE T* at(int y, int x) const { return first + (y * row + x * column); }
};

// Stands for the patch and the quads of a weight that does not lie on the pixels.
struct Nothing {
  template <class Image>
  MMPOOL_HOST_DEVICE void load(const Image&, int, int, float = 0) {}
  template <class Image>
  MMPOOL_HOST_DEVICE void store(const Image&, int, int) const {}
  MMPOOL_HOST_DEVICE float at(int, int, int) const { return 0; }
  MMPOOL_HOST_DEVICE void set(int, int, int, float) {}
};

template <int LANES>
struct AlongChannels {
  static constexpr int lanes = LANES;
  static constexpr bool channels_last = true;
  static constexpr int columns_right(int) { return 0; }  // of the first lane's window

  // One value a window.
  template <class T>
  using Values = Run<T, lanes>;

  // K x K cells from (row, column).
  template <class T, int K>
  struct Patch {
    Run<T, lanes> cells[K][K];

    MMPOOL_HOST_DEVICE void load(const Image<const T>& image, int row, int column, float absent) {
      MMPOOL_UNROLL
      for (int i = 0; i < K; ++i) {
        MMPOOL_UNROLL
        for (int j = 0; j < K; ++j) {
          cells[i][j] = Run<T, lanes>::filled(absent);
          if (within(image.height, row + i) && within(image.width, column + j)) cells[i][j].template load<true>(image.at(row + i, column + j), lanes);
        }
      }
    }
    MMPOOL_HOST_DEVICE float at(int lane, int i, int j) const { return cells[i][j][lane]; }
  };

  template <class T>
  struct Quads {
    Run<T, lanes> pixels[2][2];

    MMPOOL_HOST_DEVICE void load(const Image<const T>& image, int row, int column) {
      MMPOOL_UNROLL
      for (int i = 0; i < 2; ++i) {
        MMPOOL_UNROLL
        for (int j = 0; j < 2; ++j) {
          pixels[i][j] = Run<T, lanes>::filled(0);
          if (within(image.height, 2 * row + i) && within(image.width, 2 * column + j))
            pixels[i][j].template load<true>(image.at(2 * row + i, 2 * column + j), lanes);
        }
      }
    }
    MMPOOL_HOST_DEVICE void store(const Image<T>& image, int row, int column) const {
      MMPOOL_UNROLL
      for (int i = 0; i < 2; ++i) {
        MMPOOL_UNROLL
        for (int j = 0; j < 2; ++j) {
          if (within(image.height, 2 * row + i) && within(image.width, 2 * column + j))
            pixels[i][j].template store<true>(image.at(2 * row + i, 2 * column + j), lanes);
        }
      }
    }
    MMPOOL_HOST_DEVICE float at(int lane, int i, int j) const { return pixels[i][j][lane]; }
    MMPOOL_HOST_DEVICE void set(int lane, int i, int j, float value) { pixels[i][j].set(lane, value); }
  };

  template <class T>
  static MMPOOL_HOST_DEVICE Values<T> load(const Image<const T>& image, int row, int column) {
    Values<T> values;
    values.template load<true>(image.at(row, column), lanes);
    return values;
  }
  template <class T>
  static MMPOOL_HOST_DEVICE void store(const Image<T>& image, int row, int column, const Values<T>& values) {
    values.template store<true>(image.at(row, column), lanes);
  }
};

// ALIGNED: rows of a multiple of 4 pixels, tensors at a multiple of 16 bytes.
template <int LANES, bool ALIGNED>
struct AlongColumns {
  static constexpr int lanes = LANES;
  static constexpr bool channels_last = false;
  static constexpr int columns_right(int lane) { return lane; }

  template <class T>
  using Values = Run<T, lanes, 2>;
  template <class T>
  using Row = Run<T, 2 * lanes, 4>;

  // Windows of stride 2 that start at column, column + 2, ...: rows of a run and, for K = 3, the pixel before it.
  template <class T, int K>
  struct Patch {
    Row<T> cells[K];
    T before[K];

    MMPOOL_HOST_DEVICE void load(const Image<const T>& image, int row, int column, float absent) {
      const int start = column + K - 2;
      MMPOOL_UNROLL
      for (int i = 0; i < K; ++i) {
        cells[i] = Row<T>::filled(absent);
        before[i] = static_cast<T>(absent);
        if (!within(image.height, row + i)) continue;
        const T* from = image.at(row + i, start);
        cells[i].template load<ALIGNED>(from, image.width - start);
        if (K == 3 && start > 0) before[i] = from[-1];
      }
    }
    MMPOOL_HOST_DEVICE float at(int lane, int i, int j) const {
      const int column = 2 * lane + j - (K - 2);
      return column < 0 ? static_cast<float>(before[i]) : cells[i][column];
    }
  };

  template <class T>
  struct Quads {
    Row<T> pixels[2];

    MMPOOL_HOST_DEVICE void load(const Image<const T>& image, int row, int column) {
      MMPOOL_UNROLL
      for (int i = 0; i < 2; ++i) {
        pixels[i] = Row<T>::filled(0);
        if (2 * row + i < image.height) pixels[i].template load<ALIGNED>(image.at(2 * row + i, 2 * column), image.width - 2 * column);
      }
    }
    MMPOOL_HOST_DEVICE void store(const Image<T>& image, int row, int column) const {
      MMPOOL_UNROLL
      for (int i = 0; i < 2; ++i) {
        if (2 * row + i < image.height) pixels[i].template store<ALIGNED>(image.at(2 * row + i, 2 * column), image.width - 2 * column);
      }
    }
    MMPOOL_HOST_DEVICE float at(int lane, int i, int j) const { return pixels[i][2 * lane + j]; }
    MMPOOL_HOST_DEVICE void set(int lane, int i, int j, float value) { pixels[i].set(2 * lane + j, value); }
  };

  template <class T>
  static MMPOOL_HOST_DEVICE Values<T> load(const Image<const T>& image, int row, int column) {
    Values<T> values = Values<T>::filled(0);
    values.template load<ALIGNED>(image.at(row, column), image.width - column);
    return values;
  }
  template <class T>
  static MMPOOL_HOST_DEVICE void store(const Image<T>& image, int row, int column, const Values<T>& values) {
    values.template store<ALIGNED>(image.at(row, column), image.width - column);
  }
};

}  // namespace mmpool_ext::cuda::fixed
