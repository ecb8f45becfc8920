// The CUDA ops, compiled for the CPU, under the test-only namespace ganloss_fast_emulated.
//
// tests/harness/emulation.py routes the real ops of CPU tensors here, so that autograd and the
// public functions run on the emulated kernels without knowing it.
#include <torch/library.h>

#include "../../csrc/cuda/ops.h"

namespace harness {
long count_launches();
long count_memsets();
void set_schedule(long seed);
}  // namespace harness

#define SEGMENTS                                                            \
  "Tensor[] a, Tensor[] b, Tensor[] weights, int[] operands, int[] terms, " \
  "float[] parameters, float[] scale"

TORCH_LIBRARY(ganloss_fast_emulated, m) {
  using namespace ganloss;
  m.def("multi_tensor_loss(" SEGMENTS ", bool with_statistics) -> (Tensor, Tensor, Tensor)");
  m.def("multi_tensor_loss_backward(Tensor? grad_total, Tensor? grad_values, " SEGMENTS
        ", int[] wanted) -> Tensor[]");
  m.def(
      "multi_tensor_loss_double_backward(Tensor[] directions, Tensor? grad_total, "
      "Tensor? grad_values, " SEGMENTS
      ", int[] wanted, int[] wanted_second) "
      "-> (Tensor, Tensor, Tensor[])");
  m.def("interpolate(Tensor real, Tensor fake, Tensor alpha) -> Tensor");
  m.def("perturb(Tensor inputs, float sigma, Tensor seed) -> Tensor");
  m.def(
      "norm_penalty(Tensor gradient, int mode, float target, float scale) "
      "-> (Tensor, Tensor)");
  m.def(
      "norm_penalty_backward(Tensor grad_penalty, Tensor gradient, Tensor norms, "
      "int mode, float target, float scale) -> Tensor");
  m.def(
      "norm_penalty_double_backward(Tensor direction, Tensor grad_penalty, "
      "Tensor gradient, Tensor norms, int mode, float target, float scale) -> (Tensor, Tensor)");
  m.def("launches() -> int", [] { return static_cast<int64_t>(harness::count_launches()); });
  m.def("set_schedule(int seed) -> ()", [](int64_t seed) { harness::set_schedule(seed); });
  m.def("memsets() -> int", [] { return static_cast<int64_t>(harness::count_memsets()); });
}

TORCH_LIBRARY_IMPL(ganloss_fast_emulated, CPU, m) {
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
