#include "launch.h"
#include "polynomial_tile.h"

namespace mmpool_ext::cpu {

struct PolynomialOp {
  static constexpr char name[] = "polynomial_pool2d";
  template <typename T>
  using Rule = Polynomial<T>;
  template <typename scalar_t, typename weight_t>
  using Method = PolynomialTile<scalar_t, weight_t>;
};

}  // namespace mmpool_ext::cpu

TORCH_LIBRARY_IMPL(mmpool_ext, CPU, m) { mmpool_ext::cpu::register_pool<mmpool_ext::cpu::PolynomialOp>(m); }
