#include "launch.h"
#include "lip_tile.h"

namespace mmpool_ext::cpu {

struct SoftOp {
  static constexpr char name[] = "soft_pool2d";
  template <typename T>
  using Rule = Soft<T>;
  template <typename scalar_t, typename weight_t>
  using Method = LipTile<scalar_t, weight_t, false, Soft>;
};

}  // namespace mmpool_ext::cpu

TORCH_LIBRARY_IMPL(mmpool_ext, CPU, m) { mmpool_ext::cpu::register_pool<mmpool_ext::cpu::SoftOp>(m); }
