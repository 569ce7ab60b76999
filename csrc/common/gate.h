// LIP's gate: a pixel's logit from the response of the logit's convolution, through its instance normalisation and the amplified sigmoid.
#pragma once

#include <cmath>

#include "window.h"

namespace mmpool_ext {

// A weight that is what its tensor holds.
struct Identity {
  template <typename T>
  MMPOOL_HOST_DEVICE T operator()(T weight) const {
    return weight;
  }
  template <typename T>
  MMPOOL_HOST_DEVICE T slope(T) const {
    return T(1);
  }
};

// gate_scale * sigmoid((response - mean) * scale + bias): the logit of one channel of one image.
template <typename T>
struct Gate {
  T mean, scale, bias, gate_scale;

  MMPOOL_HOST_DEVICE T normalized(T response) const { return (response - mean) * scale + bias; }
  MMPOOL_HOST_DEVICE T sigmoid(T response) const { return 1 / (1 + std::exp(-normalized(response))); }
  MMPOOL_HOST_DEVICE T operator()(T response) const { return gate_scale * sigmoid(response); }
  // Derivative of the logit by the normalized response.
  MMPOOL_HOST_DEVICE T slope(T response) const {
    const T s = sigmoid(response);
    return gate_scale * s * (1 - s);
  }
};

// The gates of all images and channels: none.
struct NoGates {
  using gate_t = Identity;
  MMPOOL_HOST_DEVICE Identity at(int64_t, int64_t) const { return {}; }
};

// Rows of (N, C) numbers, all in the type of the arithmetic.
enum Coefficient { kMean, kInverseDeviation, kScale, kBias, kCoefficients };

// coefficients: (kCoefficients, N, C), or null without normalisation.
template <typename T>
struct Gates {
  using gate_t = Gate<T>;
  const T* coefficients;
  int64_t batch, channels;
  T gate_scale;

  MMPOOL_HOST_DEVICE const T* row(Coefficient which) const { return coefficients + which * batch * channels; }
  MMPOOL_HOST_DEVICE Gate<T> at(int64_t n, int64_t c) const {
    if (coefficients == nullptr) return {T(0), T(1), T(0), gate_scale};
    const int64_t i = n * channels + c;
    return {row(kMean)[i], row(kScale)[i], row(kBias)[i], gate_scale};
  }
};

}  // namespace mmpool_ext
