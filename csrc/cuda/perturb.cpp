// The ATen side of perturb on CUDA.
#include "../host/checks.h"
#include "../ops.h"
#include "device.h"

namespace ganloss::cuda {

at::Tensor perturb(const at::Tensor& inputs, double sigma, const at::Tensor& seed) {
  check_perturb(inputs, seed);
  const c10::cuda::OptionalCUDAGuard guard(inputs.device());
  const at::Tensor x = inputs.contiguous();  // noise follows the row-major index in any layout
  const at::Tensor out = empty_like_dense(x);
  cuda::perturb(batch_call(x, 1), pointer(x), sigma, seed.const_data_ptr<int64_t>(),
                mutable_pointer(out));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return restore_layout(out, x, inputs);
}

}  // namespace ganloss::cuda
