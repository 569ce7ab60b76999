// Loops that the compiler turns into vector code, and how it is told to: every leaf function marked MMPOOL_CLONES is compiled three times,
// for AVX-512, AVX2 with FMA, and the baseline, and the loader picks. A clone is a leaf: what it calls must be inlined into it.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define MMPOOL_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MMPOOL_CLONES
#endif

// Before a loop whose turns do not depend on each other: the buffers are disjoint, which pointers computed in a loop do not tell.
#if defined(__GNUC__) && !defined(__clang__)
#define MMPOOL_INDEPENDENT _Pragma("GCC ivdep")
#else
#define MMPOOL_INDEPENDENT
#endif

namespace mmpool_ext {

constexpr int64_t kBlock = 16;   // floats in the widest vector
constexpr int64_t kFetch = 128;  // values that are worked on between fetches

inline int64_t whole_blocks(int64_t count) { return (count + kBlock - 1) / kBlock * kBlock; }

inline float as_float(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline int32_t as_bits(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Begin to read values that are needed later: reading takes as long as computing, and neither waits for the other then. kWrite: to write them.
// Inlined always: the compiler leaves out calls that do nothing else.
template <bool kWrite = false, typename T>
[[gnu::always_inline]] inline void fetch(const T* data, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(data + i, kWrite, 2);
}

// Adding this constant rounds to the nearest integer and leaves that integer in the low bits: no conversion, so NaN is harmless. Less an integer it
// leaves the difference there.
constexpr float kRound = 12582912.0f;  // 1.5 * 2 ** 23

// x * 2 ** n for the integer n in the low bits of `rounded`, where that is a normal number; else anything.
inline float scaled(float x, float rounded) {
  return as_float(static_cast<int32_t>(static_cast<uint32_t>(as_bits(x)) + (static_cast<uint32_t>(as_bits(rounded)) << 23)));
}

// exp(x) * 2 ** -shift for round = kRound - shift, where x * log2(e) - shift is within -125 and 127; else anything.
inline float exp_shifted(float x, float round) {
  const float rounded = x * 1.44269504f + round, n = rounded - round;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // ln 2 in two parts; the first has few bits, so n times it is exact
  return scaled(1.0f + r * (1.0f + r * (0.49999994f + r * (0.166664302f + r * (0.041668009f + r * (0.00837423559f + r * 0.00138435594f))))), rounded);
}

// 1 / (1 + exp(-x)), to 2e-7; NaN for NaN.
inline float sigmoid(float x) {
  const float up = x > 80.0f ? 80.0f : x, bounded = up < -80.0f ? -80.0f : up;
  return 1.0f / (1.0f + exp_shifted(-bounded, kRound)) + (bounded - bounded);
}

// 2 ** x for x < 127, to 2e-7; exactly 0 below -125.
inline float exp2_bounded(float x) {
  const float rounded = x + kRound, f = x - (rounded - kRound);
  const float power = 1.0f + f * (0.693146978f + f * (0.240222421f + f * (0.0555073374f + f * (0.00967151265f + f * 0.00132647271f))));
  return x < -125.0f ? 0.0f : scaled(power, rounded);
}

// log2(x) for normal x, with a small relative error also near 1. Even and odd terms apart, for then fewer wait for another.
inline float log2_normal(float x) {
  const int32_t bits = static_cast<int32_t>(static_cast<uint32_t>(as_bits(x)) - 0x3F3504F3u);  // sqrt(1/2): mantissas from it to its double
  const float exponent = static_cast<float>(bits >> 23), z = as_float((bits & 0x007FFFFF) + 0x3F3504F3) - 1.0f, z2 = z * z;
  const float even = 1.44269493f + z2 * (0.480916757f + z2 * (0.287788799f + z2 * (0.216517715f + z2 * 0.125573975f)));
  const float odd = 0.72134725f + z2 * (0.360711678f + z2 * (0.238749696f + z2 * 0.208656186f));
  return exponent + z * (even - z * odd);
}

}  // namespace mmpool_ext
