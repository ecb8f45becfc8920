// The ops of CUDA tensors.
#include <torch/library.h>

#include "ops.h"

TORCH_LIBRARY_IMPL(ganloss_fast, CUDA, m) {
  using namespace ganloss;
  m.impl("multi_tensor_loss", &cuda::multi_tensor_loss);
  m.impl("multi_tensor_loss_backward", &cuda::multi_tensor_loss_backward);
  m.impl("multi_tensor_loss_double_backward", &cuda::multi_tensor_loss_double_backward);
  m.impl("interpolate", &cuda::interpolate);
  m.impl("perturb", &cuda::perturb);
  m.impl("norm_penalty", &cuda::norm_penalty);
  m.impl("norm_penalty_backward", &cuda::norm_penalty_backward);
  m.impl("norm_penalty_double_backward", &cuda::norm_penalty_double_backward);
}
