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

// Begin to read values that are needed later: reading takes as long as computing, and neither waits for the other then.
template <typename T>
inline void fetch(const T* data, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(data + i, 0, 2);
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

// 2 ** x for x < 127; exactly 0 below -125. Here and below, neighbouring terms go together first, for then fewer wait for another.
inline float exp2_bounded(float x) {
  const float rounded = x + kRound, f = x - (rounded - kRound), f2 = f * f;
  const float high = (0.00961843878f + f * 0.00133990031f) + f2 * 0.000153532586f;
  const float power = (1.0f + f * 0.693147182f) + f2 * ((0.240226477f + f * 0.0555033199f) + f2 * high);
  return x < -125.0f ? 0.0f : scaled(power, rounded);
}

// log2(x) for normal x, with a small relative error also near 1.
inline float log2_normal(float x) {
  const int32_t bits = static_cast<int32_t>(static_cast<uint32_t>(as_bits(x)) - 0x3F3504F3u);  // sqrt(1/2): mantissas from it to its double
  const float exponent = static_cast<float>(bits >> 23), z = as_float((bits & 0x007FFFFF) + 0x3F3504F3) - 1.0f, z2 = z * z, z4 = z2 * z2;
  const float low = (1.44269502f - z * 0.72134733f) + z2 * (0.48089790f - z * 0.36069646f);
  const float middle = (0.28858545f - z * 0.23963550f) + z2 * (0.20429206f - z * 0.19061847f);
  return exponent + z * (low + z4 * (middle + z4 * (0.18785499f - z * 0.11299424f)));
}

}  // namespace mmpool_ext
