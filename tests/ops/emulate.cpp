// The CUDA kernels' bodies as host code: blocks and threads one after the other, a block's phases in order. Built by test_cuda_kernels.py
// as a library for ctypes, and with -DSELF_TEST under the sanitizers as a program over random shapes.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "cuda/channel_pass.h"
#include "cuda/plan.h"

namespace mmpool_ext::cuda {
namespace {

enum Type { kFloat64, kFloat32, kFloat16, kBFloat16 };
constexpr int32_t kGatedLip = -1, kPools = std::tuple_size_v<Pools>;  // others by their place in Pools

// Call f(op) for the pooling with this number.
template <int I = 0, class F>
void with_pool(int32_t number, const F& f) {
  if constexpr (I < kPools) number == I ? f(std::tuple_element_t<I, Pools>{}) : with_pool<I + 1>(number, f);
  else std::abort();
}

struct Arguments {
  void *input, *weight, *output, *grad_output, *grad_input, *grad_weight;
  int64_t batch, channels;
  int64_t window[2][6];  // an Axis each: input, output, kernel, stride, padding, dilation
  int32_t op, type, weight_type, channels_last, backward;
  int32_t lanes, phases, launches;  // out: how it was run
  void* coefficients;               // of the gated LIP, in the type of the arithmetic; null without normalisation
  double gate_scale;
};

// A normalisation with its ReLU, or the backward of one without: `grad` and `grad_input` null for the forward.
struct NormArguments {
  void *input, *weight, *bias, *coefficients, *output, *grad, *grad_input, *sums;
  int64_t batch, channels, pixels;
  double eps;
  int32_t type, grad_type, channels_last, relu;
};

// Runs bodies block by block, thread by thread.
struct Emulator {
  Arguments* arguments;

  template <class Body, class Blocks>
  void operator()(const Body& body, const Blocks& grid, size_t shared_bytes) const {
    if (arguments != nullptr) {
      arguments->lanes = grid.lanes;
      arguments->phases = Body::phases;
      ++arguments->launches;
    }
    if (grid.threads() > Grid::most || shared_bytes > 48 * 1024) std::abort();
    const auto each_thread = [&](auto f) {
      for (uint32_t z = 0; z < grid.block[2]; ++z)
        for (uint32_t y = 0; y < grid.block[1]; ++y)
          for (uint32_t x = 0; x < grid.block[0]; ++x) f(Thread{x, y, z});
    };
    for (int64_t block = 0; block < grid.blocks; ++block) {
      std::vector<float> memory(shared_bytes / sizeof(float) + 4, std::nanf(""));
      void* start = memory.data();
      size_t room = memory.size() * sizeof(float);
      float* shared = static_cast<float*>(std::align(16, shared_bytes, start, room));
      each_thread([&](Thread thread) { body.first(block, thread, shared); });
      if constexpr (Body::phases > 1) each_thread([&](Thread thread) { body.second(block, thread, shared); });
      if constexpr (Body::phases > 2) each_thread([&](Thread thread) { body.third(block, thread, shared); });
    }
  }
};

struct Memory {
  mutable std::unique_ptr<char[]> bytes;
  void* operator()(int64_t count) const {
    bytes.reset(new char[count]);
    return bytes.get();
  }
};

template <class Op, typename scalar_t, typename weight_t, class Gates = NoGates>
void run(Arguments& arguments, const Gates& gates = {}) {
  const auto axis = [&](int i) {
    const int64_t* a = arguments.window[i];
    return Axis<int64_t>{a[0], a[1], a[2], a[3], a[4], a[5]};
  };
  using T = Tensors<scalar_t, weight_t, Gates>;
  const Problem<T> problem{
      {static_cast<const scalar_t*>(arguments.input), static_cast<const weight_t*>(arguments.weight), static_cast<scalar_t*>(arguments.output),
       static_cast<const scalar_t*>(arguments.grad_output), static_cast<scalar_t*>(arguments.grad_input),
       static_cast<typename T::grad_t*>(arguments.grad_weight), gates},
      {axis(0), axis(1)},
      arguments.batch,
      arguments.channels,
      arguments.channels_last != 0};
  const Emulator launch{&arguments};
  if (!arguments.backward) return plan_forward<Op>(problem, launch);
  plan_backward<Op>(problem, launch, Memory{});
}

template <typename scalar_t, typename weight_t>
void run_gated(Arguments& arguments) {
  using T = typename Tensors<scalar_t, weight_t>::wide_t;
  const Gates<T> gates{static_cast<const T*>(arguments.coefficients), arguments.batch, arguments.channels, static_cast<T>(arguments.gate_scale)};
  run<GatedLipOp, scalar_t, weight_t>(arguments, gates);
}

template <typename scalar_t, typename grad_t>
void run_norm(const NormArguments& a) {
  using T = typename Tensors<scalar_t, scalar_t>::wide_t;
  const Channels shape{a.channels_last != 0, a.batch, a.channels, a.pixels};
  const auto* const input = static_cast<const scalar_t*>(a.input);
  const Gates<T> rows{static_cast<const T*>(a.coefficients), a.batch, a.channels, T(0)};
  const Emulator launch{nullptr};
  if (a.grad == nullptr) {
    plan_coefficients<T>(
        shape, input, static_cast<const T*>(a.weight), static_cast<const T*>(a.bias), static_cast<T>(a.eps), static_cast<T*>(a.coefficients), launch,
        Memory{});
    return plan_normalize_relu<T>(shape, input, rows, static_cast<scalar_t*>(a.output), launch);
  }
  const auto plan = a.relu ? plan_norm_backward<true, T, scalar_t, grad_t, Emulator, Memory> : plan_norm_backward<false, T, scalar_t, grad_t, Emulator, Memory>;
  plan(shape, static_cast<const grad_t*>(a.grad), input, rows, static_cast<scalar_t*>(a.grad_input), static_cast<T*>(a.sums), launch, Memory{});
}

template <typename scalar_t, typename weight_t>
void run(Arguments& arguments) {
  if (arguments.op == kGatedLip) return run_gated<scalar_t, weight_t>(arguments);
  with_pool(arguments.op, [&](auto op) { run<decltype(op), scalar_t, weight_t>(arguments); });
}

}  // namespace
}  // namespace mmpool_ext::cuda

extern "C" void emulate(mmpool_ext::cuda::Arguments* arguments) {
  using namespace mmpool_ext::cuda;
  [[maybe_unused]] const bool same = arguments->type == arguments->weight_type;
  switch (arguments->type) {
    case kFloat32: return run<float, float>(*arguments);
#ifdef SELF_TEST  // two of six pairs: it compiles in a fraction of the time
    case kFloat16: return run<c10::Half, float>(*arguments);
#else
    case kFloat16: return same ? run<c10::Half, c10::Half>(*arguments) : run<c10::Half, float>(*arguments);
    case kFloat64: return run<double, double>(*arguments);
    case kBFloat16: return same ? run<c10::BFloat16, c10::BFloat16>(*arguments) : run<c10::BFloat16, float>(*arguments);
#endif
    default: std::abort();
  }
}

extern "C" void emulate_norm(const mmpool_ext::cuda::NormArguments* arguments) {
  using namespace mmpool_ext::cuda;
  [[maybe_unused]] const bool same = arguments->type == arguments->grad_type;
  switch (arguments->type) {
    case kFloat32: return run_norm<float, float>(*arguments);
    case kFloat16: return same ? run_norm<c10::Half, c10::Half>(*arguments) : run_norm<c10::Half, float>(*arguments);
#ifndef SELF_TEST
    case kFloat64: return run_norm<double, double>(*arguments);
    case kBFloat16: return same ? run_norm<c10::BFloat16, c10::BFloat16>(*arguments) : run_norm<c10::BFloat16, float>(*arguments);
#endif
    default: std::abort();
  }
}

#ifdef SELF_TEST
// Every shape that `seed` draws, in buffers of exactly its size: the sanitizers see what reads or writes outside, overflows or is misaligned.
int main() {
  using namespace mmpool_ext::cuda;
  std::mt19937 seed(0);
  const auto draw = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(seed); };
  int runs = 0;
  for (; runs < 500; ++runs) {
    Arguments arguments{};
    arguments.batch = draw(1, 2);
    arguments.channels = draw(0, 1) ? 8 * draw(1, 5) : draw(1, 5);
    const int64_t fixed = draw(0, 3);  // half of the time one of the two fixed windows
    for (auto& axis : arguments.window) {
      const int64_t kernel = fixed < 2 ? fixed + 2 : draw(1, 4), stride = fixed < 2 ? 2 : draw(1, 3);
      const int64_t padding = fixed < 2 ? fixed : draw(0, kernel / 2), dilation = fixed < 2 ? 1 : draw(1, 2), reach = dilation * (kernel - 1) + 1;
      const int64_t size = draw(std::max<int64_t>(std::max<int64_t>(1, padding ? dilation : 1), reach - 2 * padding), draw(0, 9) ? 24 : 90);
      const int64_t span = size + 2 * padding - reach;
      const bool partial = draw(0, 1) && span % stride && (span / stride + 1) * stride < size + padding;
      const int64_t result[6] = {size, span / stride + 1 + partial, kernel, stride, padding, dilation};
      std::copy(result, result + 6, axis);
    }
    arguments.op = static_cast<int32_t>(draw(kGatedLip, kPools - 1));
    bool per_window = false;
    if (arguments.op != kGatedLip) with_pool(arguments.op, [&](auto op) { per_window = decltype(op)::template Any<float>::kWeightPerWindow; });
    arguments.gate_scale = 12;
    arguments.type = draw(0, 1) ? kFloat32 : kFloat16;
    arguments.weight_type = kFloat32;
    arguments.channels_last = static_cast<int32_t>(draw(0, 1));
    const int64_t images = arguments.batch * arguments.channels;
    const int64_t pixels = images * arguments.window[0][0] * arguments.window[1][0];
    const int64_t windows = images * arguments.window[0][1] * arguments.window[1][1];
    const size_t size = arguments.type == kFloat32 ? 4 : 2, weight_size = 4;
    const int64_t weights = per_window ? windows : pixels;
    const size_t rows = arguments.op == kGatedLip && draw(0, 1) ? mmpool_ext::kCoefficients * images * sizeof(float) : 0;
    const size_t bytes[6] = {pixels * size, weights * weight_size, windows * size, windows * size, pixels * size, weights * weight_size};
    const std::unique_ptr<char[]> coefficients(new char[rows]());
    arguments.coefficients = rows > 0 ? coefficients.get() : nullptr;
    void** pointers[6] = {&arguments.input,       &arguments.weight,     &arguments.output,
                          &arguments.grad_output, &arguments.grad_input, &arguments.grad_weight};
    std::vector<std::unique_ptr<char[]>> buffers;
    for (int i = 0; i < 6; ++i) {
      const size_t off = draw(0, 3) ? 0 : i == 1 || i == 5 ? weight_size : size;  // a slice may start anywhere
      buffers.emplace_back(new char[off + bytes[i]]());
      *pointers[i] = buffers.back().get() + off;
    }
    for (arguments.backward = 0; arguments.backward < 2; ++arguments.backward) emulate(&arguments);
    // the normalisation of the same input
    const size_t parameters = arguments.channels * sizeof(float), of_images = images * sizeof(float);
    std::vector<std::unique_ptr<char[]>> more;
    const auto buffer = [&](size_t count) { return more.emplace_back(new char[count]()).get(); };
    NormArguments norm{};
    norm.input = arguments.input, norm.weight = buffer(parameters), norm.bias = buffer(parameters);
    norm.coefficients = buffer(mmpool_ext::kCoefficients * of_images), norm.output = arguments.grad_input;
    norm.batch = arguments.batch, norm.channels = arguments.channels, norm.pixels = arguments.window[0][0] * arguments.window[1][0];
    norm.eps = 1e-5, norm.type = arguments.type, norm.channels_last = arguments.channels_last;
    emulate_norm(&norm);
    norm.grad_type = draw(0, 1) ? kFloat32 : norm.type, norm.relu = static_cast<int32_t>(draw(0, 1));
    norm.grad = buffer(pixels * (norm.grad_type == kFloat32 ? 4 : 2)), norm.grad_input = arguments.grad_input, norm.sums = buffer(4 * of_images);
    emulate_norm(&norm);
  }
  std::printf("%d shapes\n", runs);
}
#endif
