// Passes over the pixels of each channel of each image on a GPU: sums over them, and maps with coefficients of the channel. Bodies as in fixed_pool.h.
//
// A thread reads runs of `lanes` neighbours: pixels of one channel in the contiguous format, channels of one pixel in channels_last. The pixels of a
// channel are shared out to `parts` blocks; a further launch puts their sums together in a fixed order, so results are the same in every run.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "../common/gate.h"
#include "grid.h"

namespace mmpool_ext::cuda {

template <typename T, int LANES>
struct Lane {
  T values[LANES];

  // Of memory at a multiple of its size, 16 bytes at most.
  static MMPOOL_HOST_DEVICE Lane load(const T* from) {
    constexpr int size = sizeof(T) * LANES < 16 ? sizeof(T) * LANES : 16;
    Lane lane;
    memcpy(&lane, __builtin_assume_aligned(static_cast<const void*>(from), size), sizeof(T) * LANES);
    return lane;
  }
  MMPOOL_HOST_DEVICE void store(T* to) const {
    constexpr int size = sizeof(T) * LANES < 16 ? sizeof(T) * LANES : 16;
    memcpy(__builtin_assume_aligned(static_cast<void*>(to), size), this, sizeof(T) * LANES);
  }
};

// Which values a thread goes through. Blocks: (image, group of channels, part of the pixels), the part fastest.
struct ChannelGrid {
  static constexpr uint32_t most = 256;

  bool channels_last;
  int lanes;
  uint32_t block[3];  // threads along the channels (channels_last) and along the pixels
  int64_t blocks;
  int64_t batch, channels, pixels;
  int64_t groups, parts, length;  // of channels an image or, contiguous, channels; blocks a group; pixels or runs of pixels a part

  ChannelGrid(bool channels_last, int lanes, int64_t batch, int64_t channels, int64_t pixels)
      : channels_last(channels_last), lanes(lanes), block{1, 1, 1}, batch(batch), channels(channels), pixels(pixels) {
    const int64_t runs = channels_last ? channels / lanes : 1;  // of a pixel
    block[0] = static_cast<uint32_t>(std::min<int64_t>(runs, 32));
    block[1] = most / block[0];
    groups = channels_last ? (runs + block[0] - 1) / block[0] : channels;
    const int64_t steps = channels_last ? pixels : pixels / lanes;  // of the threads along the pixels
    const int64_t wanted = std::max<int64_t>(1, 2048 / std::max<int64_t>(1, batch * groups));  // blocks that fill a large GPU
    parts = std::max<int64_t>(1, std::min<int64_t>(wanted, steps / (4 * block[1])));
    length = (steps + parts - 1) / parts;
    blocks = batch * groups * parts;
  }
  MMPOOL_HOST_DEVICE uint32_t threads() const { return block[0] * block[1]; }
  MMPOOL_HOST_DEVICE uint32_t rank(Thread thread) const { return thread.y * block[0] + thread.x; }
  MMPOOL_HOST_DEVICE int columns() const { return channels_last ? static_cast<int>(block[0]) * lanes : 1; }  // channels of a block

  struct Place {
    int64_t n, c;     // c: of the block's first column
    int64_t part;
    int64_t image;    // offset of the thread's first value in the image's tensor
    int64_t begin, end, step;  // along the pixels, and the elements from one to the next
    bool any;
  };
  MMPOOL_HOST_DEVICE Place locate(int64_t at, Thread thread) const {
    Place place;
    place.part = at % parts;
    const int64_t group = at / parts % groups;
    place.n = at / parts / groups;
    place.c = channels_last ? group * block[0] * lanes : group;
    const int64_t run = channels_last ? group * block[0] + thread.x : 0;
    place.image = place.n * channels * pixels + (channels_last ? run * lanes : group * pixels);
    place.step = channels_last ? channels : lanes;
    place.begin = place.part * length + thread.y;
    const int64_t steps = channels_last ? pixels : pixels / lanes, stop = (place.part + 1) * length;
    place.end = stop < steps ? stop : steps;
    place.any = !channels_last || run < channels / lanes;
    return place;
  }
};

// Count, mean and sum of squared deviations, after Welford (1962) and Chan, Golub and LeVeque (1979).
template <typename T>
struct Welford {
  static constexpr int numbers = 3;
  T numbers_[3] = {T(0), T(0), T(0)};

  MMPOOL_HOST_DEVICE void merge(const Welford& other) {
    const T count = numbers_[0] + other.numbers_[0];
    if (other.numbers_[0] == T(0)) return;
    const T delta = other.numbers_[1] - numbers_[1], share = other.numbers_[0] / count;
    numbers_[2] += other.numbers_[2] + delta * delta * numbers_[0] * share;
    numbers_[1] += delta * share;
    numbers_[0] = count;
  }
};

// Two sums.
template <typename T>
struct Sums {
  static constexpr int numbers = 2;
  T numbers_[2] = {T(0), T(0)};

  MMPOOL_HOST_DEVICE void merge(const Sums& other) {
    numbers_[0] += other.numbers_[0];
    numbers_[1] += other.numbers_[1];
  }
};

// Coefficients of the channels of a thread.
template <typename T, int LANES>
struct OfChannels {
  Gate<T> gates[LANES];

  MMPOOL_HOST_DEVICE OfChannels(const ChannelGrid& grid, const Gates<T>& rows, const ChannelGrid::Place& place, Thread thread) {
    for (int lane = 0; lane < LANES; ++lane)
      gates[lane] = rows.at(place.n, grid.channels_last ? place.c + static_cast<int64_t>(thread.x) * LANES + lane : place.c);
  }
};

// Mean and squared deviations of the input.
template <typename T_, typename scalar_t>
struct InputMoments {
  using T = T_;
  using State = Welford<T>;
  const scalar_t* input;

  template <int LANES>
  MMPOOL_HOST_DEVICE void operator()(const ChannelGrid& grid, const ChannelGrid::Place& place, Thread, State (&states)[LANES]) const {
    T count = T(0);
    for (int64_t at = place.begin; at < place.end; at += grid.block[1]) {
      const auto run = Lane<scalar_t, LANES>::load(input + place.image + at * place.step);
      count += T(1);
      const T share = T(1) / count;
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int lane = 0; lane < LANES; ++lane) {
        const T x = static_cast<T>(run.values[lane]), delta = x - states[lane].numbers_[1];
        states[lane].numbers_[1] += delta * share;
        states[lane].numbers_[2] += delta * (x - states[lane].numbers_[1]);
      }
    }
    for (int lane = 0; lane < LANES; ++lane) states[lane].numbers_[0] = count;
  }
};

// Sums of the gradient, and of the gradient times input - mean. RELU: of the gradient where the normalized input is positive.
template <bool RELU, typename T_, typename scalar_t, typename grad_t>
struct GradientSums {
  using T = T_;
  using State = Sums<T>;
  const scalar_t* input;
  const grad_t* grad;
  Gates<T> rows;

  template <int LANES>
  MMPOOL_HOST_DEVICE void operator()(const ChannelGrid& grid, const ChannelGrid::Place& place, Thread thread, State (&states)[LANES]) const {
    const OfChannels<T, LANES> of(grid, rows, place, thread);
    for (int64_t at = place.begin; at < place.end; at += grid.block[1]) {
      const int64_t offset = place.image + at * place.step;
      const auto xs = Lane<scalar_t, LANES>::load(input + offset);
      const auto gs = Lane<grad_t, LANES>::load(grad + offset);
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int lane = 0; lane < LANES; ++lane) {
        const Gate<T>& gate = of.gates[lane];
        const T centered = static_cast<T>(xs.values[lane]) - gate.mean, given = static_cast<T>(gs.values[lane]);
        const T passed = RELU && centered * gate.scale + gate.bias <= T(0) ? T(0) : given;
        states[lane].numbers_[0] += passed;
        states[lane].numbers_[1] += passed * centered;
      }
    }
  }
};

// Sums over the pixels of each channel in a block's part, to partial[(n * channels + c) * parts + part].
template <class Source, int LANES>
struct SumPixels {
  static constexpr int phases = 3;
  using State = typename Source::State;
  using T = typename Source::T;
  static constexpr uint32_t slices = 32;

  Source source;
  State* partial;
  ChannelGrid grid;

  static size_t shared_bytes(const ChannelGrid& grid) { return sizeof(State) * grid.threads() * LANES; }

  // Entries lie as the threads do, lanes fastest: entry e of column k is at e * columns + k.
  MMPOOL_HOST_DEVICE void first(int64_t block, Thread thread, float* shared) const {
    State states[LANES];
    const auto place = grid.locate(block, thread);
    if (place.any) source(grid, place, thread, states);
    State* const to = reinterpret_cast<State*>(shared) + static_cast<int64_t>(grid.rank(thread)) * LANES;
    for (int lane = 0; lane < LANES; ++lane) to[lane] = states[lane];
  }
  MMPOOL_HOST_DEVICE uint32_t entries() const { return grid.threads() * LANES / static_cast<uint32_t>(grid.columns()); }
  MMPOOL_HOST_DEVICE uint32_t slices_of() const {
    const uint32_t room = grid.threads() / static_cast<uint32_t>(grid.columns());
    return room < 1 ? 1 : room < slices ? room : slices;
  }
  // The entries of a column in slices, each added up in its first entry.
  MMPOOL_HOST_DEVICE void second(int64_t, Thread thread, float* shared) const {
    State* const all = reinterpret_cast<State*>(shared);
    const uint32_t columns = static_cast<uint32_t>(grid.columns()), count = slices_of();
    for (uint32_t task = grid.rank(thread); task < columns * count; task += grid.threads()) {
      const uint32_t column = task % columns, slice = task / columns;
      State sum = all[slice * columns + column];
      for (uint32_t e = slice + count; e < entries(); e += count) sum.merge(all[e * columns + column]);
      all[slice * columns + column] = sum;
    }
  }
  MMPOOL_HOST_DEVICE void third(int64_t block, Thread thread, float* shared) const {
    const State* const all = reinterpret_cast<const State*>(shared);
    const uint32_t columns = static_cast<uint32_t>(grid.columns()), count = slices_of();
    const auto place = grid.locate(block, Thread{0, 0, 0});
    for (uint32_t column = grid.rank(thread); column < columns; column += grid.threads()) {
      if (place.c + column >= grid.channels) continue;
      State sum = all[column];
      for (uint32_t slice = 1; slice < count; ++slice) sum.merge(all[slice * columns + column]);
      partial[(place.n * grid.channels + place.c + column) * grid.parts + place.part] = sum;
    }
  }
};

// One thread a channel of an image: the parts put together.
template <class State, class Result>
struct SumParts {
  static constexpr int phases = 1;

  Result result;
  const State* partial;
  int64_t count, parts;  // channels of all images
  Grid grid;

  MMPOOL_HOST_DEVICE void first(int64_t block, Thread thread, float*) const {
    const int64_t i = block * grid.block[0] + thread.x;
    if (i >= count) return;
    State sum = partial[i * parts];
    for (int64_t part = 1; part < parts; ++part) sum.merge(partial[i * parts + part]);
    result(i, sum);
  }
};

// The coefficients of a normalisation, see common/gate.h.
template <typename T>
struct WriteCoefficients {
  T* rows;
  const T *weight, *bias;
  int64_t count, channels;
  T eps;

  MMPOOL_HOST_DEVICE void operator()(int64_t i, const Welford<T>& moments) const {
    const T inverse = T(1) / std::sqrt(moments.numbers_[2] / moments.numbers_[0] + eps);
    const int64_t c = i % channels;
    rows[kMean * count + i] = moments.numbers_[1];
    rows[kInverseDeviation * count + i] = inverse;
    rows[kScale * count + i] = inverse * weight[c];
    rows[kBias * count + i] = bias[c];
  }
};

// What the parameters' gradients are summed up from, and what the input's takes: (4, N, C) of sum of the gradient, of the gradient times the normalized
// input, constant and slope.
template <typename T>
struct WriteSums {
  T* rows;
  Gates<T> coefficients;
  int64_t count;
  T pixels;

  MMPOOL_HOST_DEVICE void operator()(int64_t i, const Sums<T>& sums) const {
    const T inverse = coefficients.row(kInverseDeviation)[i], scale = coefficients.row(kScale)[i], product = sums.numbers_[1] * inverse;
    rows[i] = sums.numbers_[0];
    rows[count + i] = product;
    rows[2 * count + i] = scale * sums.numbers_[0] / pixels;
    rows[3 * count + i] = scale * product * inverse / pixels;
  }
};

// output = max(0, normalized input).
template <typename T, typename scalar_t, int LANES>
struct NormalizeRelu {
  static constexpr int phases = 1;
  const scalar_t* input;
  scalar_t* output;
  Gates<T> rows;
  ChannelGrid grid;

  MMPOOL_HOST_DEVICE void first(int64_t block, Thread thread, float*) const {
    const auto place = grid.locate(block, thread);
    if (!place.any) return;
    const OfChannels<T, LANES> of(grid, rows, place, thread);
    for (int64_t at = place.begin; at < place.end; at += grid.block[1]) {
      const int64_t offset = place.image + at * place.step;
      auto run = Lane<scalar_t, LANES>::load(input + offset);
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int lane = 0; lane < LANES; ++lane) {
        const T y = of.gates[lane].normalized(static_cast<T>(run.values[lane]));
        run.values[lane] = static_cast<scalar_t>(y < T(0) ? T(0) : y);
      }
      run.store(output + offset);
    }
  }
};

// grad_input = scale * grad - constant - slope * (input - mean).
template <bool RELU, typename T, typename scalar_t, typename grad_t, int LANES>
struct SpreadGradient {
  static constexpr int phases = 1;
  const scalar_t* input;
  const grad_t* grad;
  scalar_t* grad_input;
  Gates<T> rows;
  const T* sums;  // of WriteSums
  ChannelGrid grid;

  MMPOOL_HOST_DEVICE void first(int64_t block, Thread thread, float*) const {
    const auto place = grid.locate(block, thread);
    if (!place.any) return;
    const OfChannels<T, LANES> of(grid, rows, place, thread);
    const int64_t count = grid.batch * grid.channels;
    T constant[LANES], slope[LANES];
    for (int lane = 0; lane < LANES; ++lane) {
      const int64_t c = grid.channels_last ? place.c + static_cast<int64_t>(thread.x) * LANES + lane : place.c, i = place.n * grid.channels + c;
      constant[lane] = sums[2 * count + i];
      slope[lane] = sums[3 * count + i];
    }
    for (int64_t at = place.begin; at < place.end; at += grid.block[1]) {
      const int64_t offset = place.image + at * place.step;
      auto run = Lane<scalar_t, LANES>::load(input + offset);
      const auto gs = Lane<grad_t, LANES>::load(grad + offset);
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int lane = 0; lane < LANES; ++lane) {
        const Gate<T>& gate = of.gates[lane];
        const T centered = static_cast<T>(run.values[lane]) - gate.mean, given = static_cast<T>(gs.values[lane]);
        const T passed = RELU && centered * gate.scale + gate.bias <= T(0) ? T(0) : given;
        run.values[lane] = static_cast<scalar_t>(gate.scale * passed - constant[lane] - slope[lane] * centered);
      }
      run.store(grad_input + offset);
    }
  }
};

// The tensors of a normalisation: dense, in one memory format.
struct Channels {
  bool channels_last;
  int64_t batch, channels, pixels;

  template <typename scalar_t>
  int lanes(std::initializer_list<const void*> tensors, size_t widest) const {
    const int64_t run = channels_last ? channels : pixels;
    const int most = static_cast<int>(16 / sizeof(scalar_t));
    bool fits = run % most == 0;
    for (const void* tensor : tensors) fits = fits && reinterpret_cast<uintptr_t>(tensor) % std::min<size_t>(16, widest * most) == 0;
    return fits ? most : 1;
  }
};

// Call f(std::integral_constant<int, lanes>) with the lanes of `scalar_t` that fit.
template <typename scalar_t, class F>
void with_channel_lanes(int lanes, const F& f) {
  constexpr int most = static_cast<int>(16 / sizeof(scalar_t));
  if (lanes == most) f(std::integral_constant<int, most>{});
  else f(std::integral_constant<int, 1>{});
}

// Sum over the pixels: `allocate(bytes)` gives memory on the device that lives until the last launch has run.
template <class Source, int LANES, class Result, class Launch, class Allocate>
void sum_channels(const Channels& shape, const Source& source, const Result& result, const Launch& launch, const Allocate& allocate) {
  using Pass = SumPixels<Source, LANES>;
  using State = typename Source::State;
  const ChannelGrid grid(shape.channels_last, LANES, shape.batch, shape.channels, shape.pixels);
  const int64_t count = shape.batch * shape.channels;
  State* const partial = static_cast<State*>(allocate(static_cast<int64_t>(sizeof(State)) * count * grid.parts));
  launch(Pass{source, partial, grid}, grid, Pass::shared_bytes(grid));
  const Grid line(false, 1, Shape{{128, 1, 1}}, 1, 1, 1, count);
  launch(SumParts<State, Result>{result, partial, count, grid.parts, line}, line, 0);
}

template <typename T, typename scalar_t, class Launch, class Allocate>
void plan_coefficients(
    const Channels& shape, const scalar_t* input, const T* weight, const T* bias, T eps, T* coefficients, const Launch& launch,
    const Allocate& allocate) {
  with_channel_lanes<scalar_t>(shape.lanes<scalar_t>({input}, sizeof(scalar_t)), [&](auto lanes) {
    const WriteCoefficients<T> result{coefficients, weight, bias, shape.batch * shape.channels, shape.channels, eps};
    sum_channels<InputMoments<T, scalar_t>, decltype(lanes)::value>(shape, {input}, result, launch, allocate);
  });
}

template <typename T, typename scalar_t, class Launch>
void plan_normalize_relu(const Channels& shape, const scalar_t* input, const Gates<T>& rows, scalar_t* output, const Launch& launch) {
  with_channel_lanes<scalar_t>(shape.lanes<scalar_t>({input, output}, sizeof(scalar_t)), [&](auto lanes) {
    constexpr int count = decltype(lanes)::value;
    const ChannelGrid grid(shape.channels_last, count, shape.batch, shape.channels, shape.pixels);
    launch(NormalizeRelu<T, scalar_t, count>{input, output, rows, grid}, grid, 0);
  });
}

// sums: (4, N, C), see WriteSums.
template <bool RELU, typename T, typename scalar_t, typename grad_t, class Launch, class Allocate>
void plan_norm_backward(
    const Channels& shape, const grad_t* grad, const scalar_t* input, const Gates<T>& rows, scalar_t* grad_input, T* sums, const Launch& launch,
    const Allocate& allocate) {
  const size_t widest = std::max(sizeof(scalar_t), sizeof(grad_t));
  with_channel_lanes<scalar_t>(shape.lanes<scalar_t>({input, grad, grad_input}, widest), [&](auto lanes) {
    constexpr int count = decltype(lanes)::value;
    const WriteSums<T> result{sums, rows, shape.batch * shape.channels, static_cast<T>(shape.pixels)};
    sum_channels<GradientSums<RELU, T, scalar_t, grad_t>, count>(shape, {input, grad, rows}, result, launch, allocate);
    const ChannelGrid grid(shape.channels_last, count, shape.batch, shape.channels, shape.pixels);
    launch(SpreadGradient<RELU, T, scalar_t, grad_t, count>{input, grad, grad_input, rows, sums, grid}, grid, 0);
  });
}

}  // namespace mmpool_ext::cuda
