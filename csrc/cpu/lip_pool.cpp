#include "launch.h"
#include "lip_tile.h"

namespace mmpool_ext::cpu {

struct LipOp {
  static constexpr char name[] = "lip_pool2d";
  template <typename T>
  using Rule = Lip<T>;
  template <typename scalar_t, typename weight_t>
  using Method = LipTile<scalar_t, weight_t>;
};

}  // namespace mmpool_ext::cpu

TORCH_LIBRARY_IMPL(mmpool_ext, CPU, m) { mmpool_ext::cpu::register_pool<mmpool_ext::cpu::LipOp>(m); }
