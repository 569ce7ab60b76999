// Runs the CPU kernels without PyTorch, on buffers of exactly the right size, against the definition in float64; built with sanitizers.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>

#include "cpu/channels.h"
#include "cpu/lip_tile.h"
#include "cpu/polynomial_tile.h"

using namespace mmpool_ext;

namespace {

std::mt19937 generator(0);
double worst = 0;

template <typename T>
struct Buffer {  // on the heap by itself, so that the sanitizer sees one element too far
  std::unique_ptr<T[]> data;
  explicit Buffer(int64_t count) : data(new T[count]()) {}
};

void compare(double got, double expected, double scale) {
  if (std::isnan(got) && std::isnan(expected)) return;
  const double error = std::abs(got - expected) / scale;
  if (!(error <= worst)) worst = error;  // also where one alone is NaN
}

template <typename scalar_t, typename weight_t>
using GatedLipTile = LipTile<scalar_t, weight_t, true>;

template <template <typename> class Rule, template <typename, typename> class Method, bool kGated = false>
void run(const Axis<int64_t>& rows, const Axis<int64_t>& columns, bool channels_last, int64_t units, int extremes, float least) {
  constexpr bool kPerWindow = Rule<float>::kWeightPerWindow;
  const Window<int64_t> window{rows, columns};
  const int64_t in = rows.input * columns.input, out = rows.output * columns.output, weights = kPerWindow ? out : in;
  const int64_t all = units + (channels_last ? generator() % 2 * 3 : 0);  // of the image's channels, the tile has the first `units`
  Buffer<float> x(all * in), f(all * weights), g(all * out), y(all * out), gx(all * in), gf(all * weights);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < all * in; ++i) x.data[i] = kPerWindow ? std::max(0.0f, normal(generator)) : normal(generator);
  for (int64_t i = 0; i < all * weights; ++i) f.data[i] = kPerWindow ? least + std::abs(8 * normal(generator)) : 3 * normal(generator);
  for (int64_t i = 0; i < all * out; ++i) g.data[i] = normal(generator);
  for (int64_t i = 0; extremes && i < all * weights; ++i) {
    const auto kind = generator() % 12;
    if (kPerWindow) {
      f.data[i] = kind == 0 ? least : kind == 1 ? least + 1.0f : kind == 2 ? 35.0f : f.data[i];
    } else {
      f.data[i] = kind < 2 ? -INFINITY : kind == 2 ? -300.0f : kind == 3 ? 90.0f : f.data[i];
    }
    if (extremes == 2 && generator() % 50 == 0) f.data[i] = NAN;
  }
  for (int64_t i = 0; kPerWindow && extremes && i < all * in; ++i) {
    const auto kind = generator() % 12;
    x.data[i] = kind == 0 ? 1e-40f : kind == 1 ? -1.0f : x.data[i];
  }
  const auto tile = [&](auto* data, int64_t height, int64_t width) {
    using T = std::remove_pointer_t<decltype(data)>;
    return channels_last ? Tile<T>{data, width * all, all, 1} : Tile<T>{data, width, 1, height * width};
  };
  const float *cx = x.data.get(), *cf = f.data.get(), *cg = g.data.get();
  const auto tx = tile(cx, rows.input, columns.input);
  const auto tg = tile(cg, rows.output, columns.output), tf = kPerWindow ? tile(cf, rows.output, columns.output) : tile(cf, rows.input, columns.input);
  const auto ty = tile(y.data.get(), rows.output, columns.output), tgx = tile(gx.data.get(), rows.input, columns.input);
  const auto tgf = kPerWindow ? tile(gf.data.get(), rows.output, columns.output) : tile(gf.data.get(), rows.input, columns.input);
  const Lines lines(window, channels_last, units);
  Method<float, float> forward(lines, false), backward(lines, true);
  std::vector<float> rows_of_gates(kCoefficients * units);
  for (float& value : rows_of_gates) value = normal(generator);
  const Gates<float> gates{rows_of_gates.data(), 1, units, 12.0f};
  if constexpr (kGated) forward.set_gates(gates, 0, 0), backward.set_gates(gates, 0, 0);
  const auto gate_of = [&](int64_t unit) {
    if constexpr (!kGated) return Identity{};
    else return Gate<double>{gates.at(0, unit).mean, gates.at(0, unit).scale, gates.at(0, unit).bias, 12.0};
  };
  const int64_t cut_out = rows.output / 2, cut_in = rows.input / 3;  // as two tasks would share the tile
  forward.forward(tx, tf, ty, 0, cut_out);
  forward.forward(tx, tf, ty, cut_out, rows.output);
  if (cut_in > 0) backward.backward(tg, tx, tf, tgx, tgf, 0, cut_in);
  backward.backward(tg, tx, tf, tgx, tgf, cut_in, rows.input);
  for (int64_t unit = units; unit < all; ++unit) {  // the neighbours are left alone
    for (int64_t i = 0; i < out; ++i) compare(ty.data[i * all + unit], 0, 1);
    for (int64_t i = 0; i < in; ++i) compare(tgx.data[i * all + unit], 0, 1);
    for (int64_t i = 0; i < weights; ++i) compare(tgf.data[i * all + unit], 0, 1);
  }
  for (int64_t unit = 0; unit < units; ++unit) {
    const auto gate = gate_of(unit);
    const Planes<float, float, int64_t, std::remove_const_t<decltype(gate)>> planes{tx.plane(unit), tf.plane(unit), gate};
    const auto grad = tg.plane(unit);
    std::vector<Rule<double>> rules(out);
    for (int64_t oy = 0; oy < rows.output; ++oy) {
      for (int64_t ox = 0; ox < columns.output; ++ox) {
        const auto rule = rules[oy * columns.output + ox] = measure<Rule<double>, double>(window, planes, oy, ox);
        compare(ty.plane(unit)(oy, ox), rule.output(), 1);
        if constexpr (kPerWindow) compare(tgf.plane(unit)(oy, ox), gather_window<Rule<double>, double>(window, planes, grad, rule, oy, ox), 1);
      }
    }
    const Plane<const Rule<double>, int64_t> known{rules.data(), columns.output, 1};
    std::vector<Gradients<double>> sums;
    Gradients<double> scale{1, 1};  // of the plane: contributions to a pixel may cancel, and near a zero pixel they are large
    for (int64_t iy = 0; iy < rows.input; ++iy) {
      for (int64_t ix = 0; ix < columns.input; ++ix) {
        sums.push_back(gather<Rule<double>, double>(window, planes, grad, known, iy, ix));
        scale.input = std::fmax(scale.input, std::abs(sums.back().input));
        scale.weight = std::fmax(scale.weight, std::abs(sums.back().weight));
      }
    }
    for (int64_t i = 0; i < in; ++i) {
      const int64_t iy = i / columns.input, ix = i % columns.input;
      compare(tgx.plane(unit)(iy, ix), sums[i].input, scale.input);
      if constexpr (!kPerWindow) compare(tgf.plane(unit)(iy, ix), sums[i].weight, scale.weight);
    }
  }
}

// An instance normalisation of the first `units` channels of an image against two passes in double.
void run_norm(bool channels_last, int64_t units, int64_t pixels) {
  const int64_t channels = channels_last ? units : 1, step = channels_last ? units + generator() % 3 : 1;
  Buffer<float> x(pixels * step), y(pixels * step), g(pixels * step), gx(pixels * step);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < pixels * step; ++i) x.data[i] = 3 + normal(generator), g.data[i] = normal(generator);
  const ChannelBlock block{channels_last, channels, pixels, step};
  const Moments moments = block.moments<float>(x.data.get());
  std::vector<float> mean(channels), inverse(channels), scale(channels, 1.5f), bias(channels, 0.25f), sums(channels), products(channels);
  for (int64_t c = 0; c < channels; ++c) {
    double expected = 0, squares = 0;
    for (int64_t i = 0; i < pixels; ++i) expected += x.data[i * step + c] / static_cast<double>(pixels);
    for (int64_t i = 0; i < pixels; ++i) squares += std::pow(x.data[i * step + c] - expected, 2);
    compare(moments.mean[c], expected, 1);
    compare(moments.squares[c], squares, 1 + squares);
    mean[c] = static_cast<float>(expected), inverse[c] = static_cast<float>(1 / std::sqrt(squares / pixels + 1e-5)), scale[c] *= inverse[c];
  }
  block.normalize(x.data.get(), mean.data(), scale.data(), bias.data(), y.data.get());
  block.gradient<true>(
      g.data.get(), x.data.get(), mean.data(), inverse.data(), scale.data(), bias.data(), gx.data.get(), sums.data(), products.data());
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0, product = 0;
    const auto passed = [&](int64_t at) { return y.data[at] > 0 ? static_cast<double>(g.data[at]) : 0.0; };
    for (int64_t i = 0; i < pixels; ++i) {
      const int64_t at = i * step + c;
      compare(y.data[at], std::fmax(0.0, (x.data[at] - mean[c]) * static_cast<double>(scale[c]) + bias[c]), 10);
      sum += passed(at), product += passed(at) * (x.data[at] - mean[c]) * inverse[c];
    }
    compare(sums[c], sum, pixels);
    compare(products[c], product, pixels);
    for (int64_t i = 0; pixels > 1 && i < pixels; ++i) {
      const int64_t at = i * step + c;
      compare(gx.data[at], scale[c] * (passed(at) - sum / pixels - (x.data[at] - mean[c]) * inverse[c] * product / pixels), 10 * (1 + scale[c]));
    }
  }
}

Axis<int64_t> axis(bool halves) {
  const auto draw = [](int64_t low, int64_t high) { return low + static_cast<int64_t>(generator() % (high - low + 1)); };
  if (const int64_t output = draw(1, 70); halves) return {2 * output, output, 2, 2, 0, 1};  // no overlap and nothing left over
  const int64_t kernel = draw(1, 5), stride = draw(1, 4), padding = draw(0, kernel / 2), dilation = kernel > 2 ? draw(1, 3) : 1;
  const int64_t reach = dilation * (kernel - 1), least = std::max(dilation, reach + 1 - 2 * padding);
  const int64_t room[] = {0, 0, 0, 0, 40, 40, 40, 160};  // nothing beside the window; large planes are worked on in bands
  int64_t input = least + draw(0, room[generator() % 8]);
  if (generator() % 2) input = std::max(least, whole_blocks(input / stride) * stride - padding);  // the columns just fill their blocks
  const int64_t span = input + 2 * padding - reach - 1;
  const bool partial = generator() % 2 && span % stride && (span / stride + 1) * stride < input + padding;  // ceil_mode
  return {input, span / stride + 1 + partial, kernel, stride, padding, dilation};
}

}  // namespace

int main() {
  for (int round = 0; round < 400; ++round) {
    const bool channels_last = round % 2;
    const int64_t units = 1 + static_cast<int64_t>(generator() % (channels_last ? 40 : 4));
    const bool halves = generator() % 4 == 0;
    run<Lip, LipTile>(axis(halves), axis(halves), channels_last, units, round % 3, 0);
    run<Lip, GatedLipTile, true>(axis(halves), axis(halves), channels_last, units, round % 3, 0);
    run_norm(channels_last, units, 1 + generator() % 300);
    run<Polynomial, PolynomialTile>(axis(halves), axis(halves), channels_last, units, round % 3, generator() % 2 ? kSteep : 0);
  }
  std::printf("largest deviation %.3g\n", worst);
  return worst < 5e-5 ? 0 : 1;  // an alpha of 30 makes 30 times the rounding of a ratio
}
