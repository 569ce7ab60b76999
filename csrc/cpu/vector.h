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

constexpr int64_t kBlock = 16;  // floats in the widest vector

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

// Adding this constant rounds to the nearest integer and leaves that integer in the low bits: no conversion, so NaN is harmless.
constexpr float kRound = 12582912.0f;  // 1.5 * 2 ** 23
constexpr int32_t kRoundBits = 0x4B400000;

// 2 ** (n - bias) for the integer n in the low bits of `rounded`, as exponent bits; of a NaN anything.
inline float power_of_two(float rounded, int32_t bias) {
  return as_float(static_cast<int32_t>((static_cast<uint32_t>(as_bits(rounded)) - static_cast<uint32_t>(bias)) << 23));
}

// exp(x) * 2 ** -shift, where `bias` is kRoundBits + shift - 127: never below exponent 0 for x >= (shift - 127) * ln 2, and exactly 0 there.
inline float exp_shifted(float x, int32_t bias) {
  const float rounded = x * 1.44269504f + kRound;
  const float n = rounded - kRound;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // ln 2 in two parts; the first has few bits, so n times it is exact
  const float q = 0.5f + r * (0.16666576f + r * (0.04166637f + r * (0.00836323f + r * 0.00139412f)));
  return (1.0f + (r + r * r * q)) * power_of_two(rounded, bias);
}

// 2 ** x for x < 127; exactly 0 below -126.5.
inline float exp2_bounded(float x) {
  const float low = x > -127.0f ? x : -127.0f;
  const float rounded = low + kRound;
  const float f = low - (rounded - kRound);
  const float q = 0.69314718f + f * (0.24022651f + f * (0.05550357f + f * (0.00961803f + f * (0.00133910f + f * 0.00015470f))));
  return (1.0f + f * q) * power_of_two(rounded, kRoundBits - 127);
}

// log2(x) for normal x, with a small relative error also near 1.
inline float log2_normal(float x) {
  const int32_t bits = static_cast<int32_t>(static_cast<uint32_t>(as_bits(x)) - 0x3F3504F3u);  // sqrt(1/2): mantissas from it to its double
  const float exponent = static_cast<float>(bits >> 23), z = as_float((bits & 0x007FFFFF) + 0x3F3504F3) - 1.0f;
  return exponent + z * (1.44269502f + z * (-0.72134733f + z * (0.48089790f + z * (-0.36069646f + z * (0.28858545f + z * (-0.23963550f +
                    z * (0.20429206f + z * (-0.19061847f + z * (0.18785499f - z * 0.11299424f)))))))));
}

}  // namespace mmpool_ext
