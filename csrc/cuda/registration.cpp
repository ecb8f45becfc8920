// The ops of CUDA tensors.
#include <torch/library.h>

#include "../ops.h"

TORCH_LIBRARY_IMPL(ganloss_fast, CUDA, m) {
#define GANLOSS_REGISTER_CUDA(name, ...) m.impl(#name, &ganloss::cuda::name);
  GANLOSS_FOR_EACH_OP(GANLOSS_REGISTER_CUDA)
}
