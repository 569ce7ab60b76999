#include <torch/library.h>

#include "../gated.h"
#include "channels.h"
#include "launch.h"
#include "lip_tile.h"

namespace mmpool_ext::cpu {
namespace {

template <typename scalar_t, typename weight_t>
using GatedLipTile = LipTile<scalar_t, weight_t, true>;

template <typename T>
Gates<T> gates_of(const at::Tensor& coefficients, const at::Tensor& input, double gate_scale) {
  return {coefficients.numel() > 0 ? coefficients.const_data_ptr<T>() : nullptr, input.size(0), input.size(1), static_cast<T>(gate_scale)};
}

// Call f(block, n, c) for blocks of channels, in parallel.
template <typename F>
void for_each_block(const at::Tensor& dense, const F& f) {
  const bool last = dense.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  const int64_t batch = dense.size(0), channels = dense.size(1), pixels = dense.size(2) * dense.size(3);
  // in channels_last whole images, but for few of them
  const int64_t parts = last ? std::max<int64_t>(1, std::min(channels / 64, 2 * at::get_num_threads() / std::max<int64_t>(batch, 1))) : channels;
  const int64_t grain = std::max<int64_t>(1, at::internal::GRAIN_SIZE / std::max<int64_t>(1, 2 * pixels * channels / parts));
  at::parallel_for(0, batch * parts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task % parts, first = channels * part / parts, count = channels * (part + 1) / parts - first;
      f(ChannelBlock{last, count, pixels, channels}, task / parts, first);
    }
  });
}

// Call f(value of the type of the elements).
template <typename F>
void with_type(const at::Tensor& dense, const F& f) {
  dispatch("instance_norm_relu", dense, dense, [&](auto scalar, auto) { f(scalar); });
}

struct Cpu {
  struct Guard {
    explicit Guard(const at::Device&) {}
  };

  static void coefficients(const at::Tensor& dense, const at::Tensor& weight, const at::Tensor& bias, double eps, const at::Tensor& result) {
    with_type(dense, [&](auto scalar) {
      using scalar_t = decltype(scalar);
      using T = wide_t<scalar_t>;
      const Layout layout(dense);
      const int64_t batch = dense.size(0), channels = dense.size(1);
      const scalar_t* const data = dense.const_data_ptr<scalar_t>();
      const T *const weights = weight.const_data_ptr<T>(), *const biases = bias.const_data_ptr<T>();
      T* const rows = result.mutable_data_ptr<T>();
      for_each_block(dense, [&](const ChannelBlock& block, int64_t n, int64_t first) {
        const Moments moments = block.template moments<T>(data + n * layout.batch + first * layout.channel);
        for (int64_t c = 0; c < block.channels; ++c) {
          const double inverse = 1 / std::sqrt(moments.squares[c] / block.pixels + eps);
          const int64_t at = n * channels + first + c, row = batch * channels;
          rows[kMean * row + at] = static_cast<T>(moments.mean[c]);
          rows[kInverseDeviation * row + at] = static_cast<T>(inverse);
          rows[kScale * row + at] = static_cast<T>(inverse * weights[first + c]);
          rows[kBias * row + at] = biases[first + c];
        }
      });
    });
  }

  static void normalize_relu(const at::Tensor& dense, const at::Tensor& coefficients, const at::Tensor& output) {
    with_type(dense, [&](auto scalar) {
      using scalar_t = decltype(scalar);
      using T = wide_t<scalar_t>;
      const Layout layout(dense);
      const scalar_t* const from = dense.const_data_ptr<scalar_t>();
      scalar_t* const to = output.mutable_data_ptr<scalar_t>();
      const Gates<T> rows = gates_of<T>(coefficients, dense, 0);
      for_each_block(dense, [&](const ChannelBlock& block, int64_t n, int64_t first) {
        const int64_t offset = n * layout.batch + first * layout.channel, at = n * dense.size(1) + first;
        block.normalize(from + offset, rows.row(kMean) + at, rows.row(kScale) + at, rows.row(kBias) + at, to + offset);
      });
    });
  }

  static void norm_backward(
      const at::Tensor& grad, const at::Tensor& dense, const at::Tensor& coefficients, bool relu, const at::Tensor& grad_input,
      const at::Tensor& sums) {
    dispatch("instance_norm_relu", dense, grad, [&](auto scalar, auto grad_scalar) {
      using scalar_t = decltype(scalar);
      using grad_t = decltype(grad_scalar);
      using T = wide_t<scalar_t>;
      const Layout layout(dense);
      const scalar_t* const input = dense.const_data_ptr<scalar_t>();
      const grad_t* const given = grad.const_data_ptr<grad_t>();
      scalar_t* const to = grad_input.mutable_data_ptr<scalar_t>();
      T *const sum = sums.mutable_data_ptr<T>(), *const product = sum + dense.size(0) * dense.size(1);
      const Gates<T> rows = gates_of<T>(coefficients, dense, 0);
      for_each_block(dense, [&](const ChannelBlock& block, int64_t n, int64_t first) {
        const int64_t offset = n * layout.batch + first * layout.channel, at = n * dense.size(1) + first;
        const auto spread = relu ? &ChannelBlock::gradient<true, T, grad_t, scalar_t> : &ChannelBlock::gradient<false, T, grad_t, scalar_t>;
        (block.*spread)(
            given + offset, input + offset, rows.row(kMean) + at, rows.row(kInverseDeviation) + at, rows.row(kScale) + at, rows.row(kBias) + at,
            to + offset, sum + at, product + at);
      });
    });
  }

  static void gated_forward(
      const char* op, const at::Tensor& input, const at::Tensor& response, const at::Tensor& coefficients, double gate_scale,
      const at::Tensor& output, const Window<int64_t>& window) {
    if (input.scalar_type() == at::kDouble) {
      return define_forward<Lip>(op, input, response, output, window, gates_of<double>(coefficients, input, gate_scale));
    }
    tile_forward<GatedLipTile>(op, input, response, output, window, gates_of<float>(coefficients, input, gate_scale));
  }

  static void gated_backward(
      const char* op, const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& response, const at::Tensor& coefficients,
      double gate_scale, const at::Tensor& grad_input, const at::Tensor& grad, const Window<int64_t>& window) {
    if (input.scalar_type() == at::kDouble) {
      const auto gates = gates_of<double>(coefficients, input, gate_scale);
      return define_backward<Lip>(op, grad_output, input, response, grad_input, grad, window, gates);
    }
    const auto gates = gates_of<float>(coefficients, input, gate_scale);
    tile_backward<GatedLipTile>(op, grad_output, input, response, grad_input, grad, window, gates);
  }
};

}  // namespace
}  // namespace mmpool_ext::cpu

TORCH_LIBRARY_IMPL(mmpool_ext, CPU, m) { mmpool_ext::register_gated<mmpool_ext::cpu::Cpu>(m); }
