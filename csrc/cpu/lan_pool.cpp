#include "launch.h"

namespace mmpool_ext::cpu {

struct LanOp {
  static constexpr char name[] = "lan_pool2d";
  template <typename T>
  using Rule = Lan<T>;
};

}  // namespace mmpool_ext::cpu

TORCH_LIBRARY_IMPL(mmpool_ext, CPU, m) { mmpool_ext::cpu::register_pool<mmpool_ext::cpu::LanOp>(m); }
