#include "launch.h"

TORCH_LIBRARY_IMPL(mmpool_ext, CUDA, m) { mmpool_ext::cuda::register_pool<mmpool_ext::cuda::SoftOp>(m); }
