// The rules of rules.h for windows that a thread holds in registers: a division a window instead of one a cell, no branch, a GPU's own exp2
// and log2. Arithmetic is in float.
//
// A rule tells how a window's cells give its output, what the window's pixels must know of it in backward (states), and what one window adds
// to a pixel's gradients. `cells.each(f)` calls f(input, weight, present) for each cell; a cell in the padding is not present and has the
// input 0 and the weight Rule::absent(). `alpha` is what P-pooling has once a window (per_window); the other rules' weight lies on the pixels, or is
// the input itself (is_input).
#pragma once

#include <cmath>
#include <limits>

#include "../common/gate.h"
#include "../common/rules.h"

namespace mmpool_ext::cuda::fixed {

// To 2^-22 relative; 0 below 2^-126.
MMPOOL_HOST_DEVICE float exp2_of(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::exp2(x);
#endif
}

// To 2^-22, absolute between 1/2 and 2 and relative elsewhere.
MMPOOL_HOST_DEVICE float log2_of(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::log2(x);
#endif
}

// 1 / x to a unit in the last place, 0 above 2^126; x / y to 2 units for 2^-126 < y <= 2^126.
MMPOOL_HOST_DEVICE float inverse_of(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return x > 0x1p126f ? 0 : 1 / x;
#endif
}
MMPOOL_HOST_DEVICE float quotient(float x, float y) { return x * inverse_of(y); }

// The larger; NaN if one is.
MMPOOL_HOST_DEVICE float max_or_nan(float x, float y) {
#ifdef __CUDA_ARCH__
  float z;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
#else
  return x < y || y != y ? y : x;
#endif
}

// A value in units of the window's largest; 1 in a window whose largest is 0. Scaled first: the inverse of a subnormal would overflow, that of
// a huge number be subnormal. An error of the inverse is common to the cells of a window, so it cancels.
struct Ratio {
  float scale, inverse, offset;
  MMPOOL_HOST_DEVICE explicit Ratio(float largest)
      : scale(largest < 0x1p-64f ? 0x1p64f : largest > 0x1p64f ? 0x1p-64f : 1.f), inverse(largest == 0 ? 1.f : inverse_of(largest * scale)),
        offset(largest == 0 ? 1.f : 0.f) {}
  MMPOOL_HOST_DEVICE float operator()(float value) const { return value * scale * inverse + offset; }
};

// A weight F that lies on the pixels. Weight knows the window's largest F: operator() is F relative to it, along() a factor times its
// derivative in F.
template <class Weight>
struct WeightPerPixel {
  static constexpr bool per_window = false, is_input = false;
  static constexpr int states = 3;  // largest F, grad_output / sum of weights, output

  static MMPOOL_HOST_DEVICE float absent() { return Weight::lowest(); }

  // The weights' largest is 1 and they are divided out at the end: inputs beyond a ninth of float's largest overflow.
  template <class Cells>
  static MMPOOL_HOST_DEVICE float mean(const Cells& cells, float& largest, float& sum) {
    largest = Weight::lowest();
    cells.each([&](float, float f, bool) { largest = fmaxf(largest, f); });
    const Weight weight(largest);
    float weighted = 0;
    sum = 0;
    cells.each([&](float input, float f, bool) {
      const float w = weight(f);
      sum += w;
      weighted += w * input;
    });
    if (largest == Weight::lowest()) {  // no pixel has any weight: the plain mean, or NaN if one is NaN
      weighted = sum = 0;
      cells.each([&](float input, float f, bool present) {
        sum += f != f ? f : static_cast<float>(present);
        weighted += input;
      });
      largest = Weight::none();
    }
    if (largest == infinity<float>()) sum = std::numeric_limits<float>::quiet_NaN();
    return quotient(weighted, sum);
  }
  template <class Cells>
  static MMPOOL_HOST_DEVICE float forward(const Cells& cells, float) {
    float largest, sum;
    return mean(cells, largest, sum);
  }
  template <class Cells>
  static MMPOOL_HOST_DEVICE float backward(const Cells& cells, float, float grad_output, float (&state)[states]) {
    float sum;
    state[2] = mean(cells, state[0], sum);
    state[1] = quotient(grad_output, sum);
    return 0;
  }
  // What a window that does not exist tells: nothing.
  static MMPOOL_HOST_DEVICE void neutral(float (&state)[states]) {
    state[0] = std::numeric_limits<float>::max();
    state[1] = state[2] = 0;
  }
  static MMPOOL_HOST_DEVICE void add(const float (&state)[states], float input, float f, float& grad_input, float& grad_f) {
    const Weight weight(state[0]);
    const float w = weight.gathered(f);
    grad_input += state[1] * w;
    grad_f += weight.along(w, state[1] * (input - state[2]));
  }
};

// LIP: F = e^logit.
struct Exponential {
  float largest;
  MMPOOL_HOST_DEVICE explicit Exponential(float largest) : largest(largest) {}
  static MMPOOL_HOST_DEVICE float lowest() { return -infinity<float>(); }
  static MMPOOL_HOST_DEVICE float none() { return -std::numeric_limits<float>::max(); }
  MMPOOL_HOST_DEVICE float operator()(float logit) const { return exp2_of((logit - largest) * 1.4426950408889634f); }
  // In a window without any weight, whose largest is none(), -inf weighs 1 as it did in the mean.
  MMPOOL_HOST_DEVICE float gathered(float logit) const { return (*this)(fmaxf(logit, none())); }
  MMPOOL_HOST_DEVICE float along(float weight, float factor) const { return factor * weight; }
};
struct Lip : WeightPerPixel<Exponential> {
  // A pixel at -inf has no weight to change.
  static MMPOOL_HOST_DEVICE void finish(float, float logit, float&, float& grad_logit) {
    if (logit == -infinity<float>()) grad_logit = 0;
  }
};

// SoftPool: F = e^input.
struct Soft : WeightPerPixel<Exponential> {
  static constexpr bool is_input = true;
  static MMPOOL_HOST_DEVICE void add(const float (&state)[states], float input, float, float& grad_input, float&) {
    grad_input += state[1] * Exponential(state[0]).gathered(input) * (1 + input - state[2]);
  }
  static MMPOOL_HOST_DEVICE void finish(float, float, float&, float&) {}
};

// LAN, Eq. 1 of the LIP paper: F is given, >= 0; a window without any is the plain mean.
struct Proportional : Ratio {
  bool any;
  MMPOOL_HOST_DEVICE explicit Proportional(float largest) : Ratio(largest), any(largest != 0) {}
  static MMPOOL_HOST_DEVICE float lowest() { return 0; }
  static MMPOOL_HOST_DEVICE float none() { return 0; }
  MMPOOL_HOST_DEVICE float gathered(float importance) const { return (*this)(importance); }
  MMPOOL_HOST_DEVICE float along(float, float factor) const { return any ? factor * scale * inverse : 0; }
};
struct Lan : WeightPerPixel<Proportional> {
  static MMPOOL_HOST_DEVICE void finish(float, float, float&, float&) {}
};

// A gate for windows in registers: not the logit of a response, but its weight less the largest there can be, exp(gate_scale * (sigmoid - 1)), by two
// exponentials of the GPU's own. It lies between exp(-gate_scale) and 1, so that a window needs no largest logit first.
struct GatedWeight {
  float mean, scale, bias, gate_scale;  // scale and bias times -log2(e)

  MMPOOL_HOST_DEVICE explicit GatedWeight(const Gate<float>& gate)
      : mean(gate.mean), scale(gate.scale * -1.4426950408889634f), bias(gate.bias * -1.4426950408889634f), gate_scale(gate.gate_scale) {}
  MMPOOL_HOST_DEVICE float sigmoid(float response) const { return inverse_of(1 + exp2_of(fmaf(response - mean, scale, bias))); }
  MMPOOL_HOST_DEVICE float operator()(float response) const { return exp2_of(gate_scale * 1.4426950408889634f * (sigmoid(response) - 1)); }
  // Derivative of the logit by the normalized response.
  MMPOOL_HOST_DEVICE float slope(float response) const {
    const float s = sigmoid(response);
    return gate_scale * s * (1 - s);
  }
};
MMPOOL_HOST_DEVICE Identity in_registers(const Identity& none) { return none; }
MMPOOL_HOST_DEVICE GatedWeight in_registers(const Gate<float>& gate) { return GatedWeight(gate); }

// LIP behind a gate: the weights are given.
struct GatedLip {
  static constexpr bool per_window = false, is_input = false;
  static constexpr int states = 2;  // grad_output / sum of weights, output

  static MMPOOL_HOST_DEVICE float absent() { return 0; }
  template <class Cells>
  static MMPOOL_HOST_DEVICE float mean(const Cells& cells, float& sum) {
    float weighted = 0;
    sum = 0;
    cells.each([&](float input, float weight, bool present) {
      const float w = present ? weight : 0;
      sum += w;
      weighted += w * input;
    });
    return quotient(weighted, sum);
  }
  template <class Cells>
  static MMPOOL_HOST_DEVICE float forward(const Cells& cells, float) {
    float sum;
    return mean(cells, sum);
  }
  template <class Cells>
  static MMPOOL_HOST_DEVICE float backward(const Cells& cells, float, float grad_output, float (&state)[states]) {
    float sum;
    state[1] = mean(cells, sum);
    state[0] = quotient(grad_output, sum);
    return 0;
  }
  static MMPOOL_HOST_DEVICE void neutral(float (&state)[states]) { state[0] = state[1] = 0; }
  static MMPOOL_HOST_DEVICE void add(const float (&state)[states], float input, float weight, float& grad_input, float& grad_logit) {
    const float share = state[0] * weight;
    grad_input += share;
    grad_logit += share * (input - state[1]);
  }
  static MMPOOL_HOST_DEVICE void finish(float, float, float&, float&) {}
};

// P-pooling: F = x^alpha, computed from the ratios r = x / largest. EXACT where the result is not rounded to a half: a large alpha
// multiplies the error of the logarithm.
template <bool EXACT>
struct Polynomial {
  static constexpr bool per_window = true, is_input = false;
  static constexpr int states = 4;  // largest input, alpha, grad_output / sum of weights, alpha * output in units of the largest input

  static MMPOOL_HOST_DEVICE float absent() { return 0; }
  static MMPOOL_HOST_DEVICE float clamped(float input) { return max_or_nan(input, 0.f); }

  // Finite at 0, so that 0^0 = 1. Between 3/4 and 1, where the weights are, by a polynomial whose relative error is 2^-22 with all roundings;
  // below, the weight takes so much of the error as 3/4^alpha leaves.
  static MMPOOL_HOST_DEVICE float log2_ratio(float ratio) {
    const float log = fmaxf(log2_of(ratio), -1e30f);
    if (!EXACT) return log;
    const float f = ratio - 1;
    float series = -0.49022436f;
    series = fmaf(series, f, 0.20762546f);
    series = fmaf(series, f, -0.37192598f);
    series = fmaf(series, f, 0.48021063f);
    series = fmaf(series, f, -0.72136265f);
    series = fmaf(series, f, 1.4426950f);
    return ratio > 0.75f ? series * f : log;
  }

  template <class Cells>
  static MMPOOL_HOST_DEVICE float sums(const Cells& cells, float alpha, float& sum, float& mean) {
    float largest = 0;
    cells.each([&](float input, float, bool) { largest = fmaxf(largest, input); });
    const Ratio ratio(largest);
    float weighted = 0;
    sum = 0;
    cells.each([&](float input, float, bool present) {
      const float r = ratio(clamped(input)), power = exp2_of(alpha * log2_ratio(r)), w = present ? power : 0;
      sum += w;
      weighted += w * r;
    });
    mean = quotient(weighted, sum);
    return largest;
  }
  template <class Cells>
  static MMPOOL_HOST_DEVICE float forward(const Cells& cells, float alpha) {
    float sum, mean;
    return sums(cells, alpha, sum, mean) * mean;
  }
  template <class Cells>
  static MMPOOL_HOST_DEVICE float backward(const Cells& cells, float alpha, float grad_output, float (&state)[states]) {
    float sum, mean;
    const float largest = sums(cells, alpha, sum, mean);
    const Ratio ratio(largest);
    float covariance = 0;
    cells.each([&](float input, float, bool present) {
      const float r = ratio(clamped(input)), log = log2_ratio(r), term = exp2_of(alpha * log) * (r - mean) * log;
      covariance += present && r != 0 ? term : 0;
    });
    const float share = quotient(grad_output, sum);
    state[0] = largest;
    state[1] = alpha;
    state[2] = share;
    state[3] = alpha * mean;
    return share * largest * covariance * 0.6931471805599453f;
  }
  static MMPOOL_HOST_DEVICE void neutral(float (&state)[states]) {
    state[0] = std::numeric_limits<float>::max();
    state[1] = 1;
    state[2] = state[3] = 0;
  }
  static MMPOOL_HOST_DEVICE void add(const float (&state)[states], float input, float, float& grad_input, float&) {
    const float alpha = state[1], log = log2_ratio(Ratio(state[0])(clamped(input)));
    const float floored = alpha < 1 ? fmaxf(log, -19.931568569324174f) : log;  // as if the ratio were 1e-6: the slope stays finite
    grad_input += state[2] * ((1 + alpha) * exp2_of(alpha * log) - state[3] * exp2_of((alpha - 1) * floored));  // 1 + alpha and alpha may cancel
  }
  static MMPOOL_HOST_DEVICE void finish(float input, float, float& grad_input, float&) {
    if (input < 0) grad_input = 0;
  }
};

}  // namespace mmpool_ext::cuda::fixed
