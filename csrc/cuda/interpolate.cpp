// The ATen side of interpolate on CUDA.
#include "../host/samples.h"
#include "../ops.h"
#include "device.h"

namespace ganloss::cuda {

at::Tensor interpolate(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha) {
  const InterpolateOperands operands = interpolate_operands(real, fake, alpha);
  const c10::cuda::OptionalCUDAGuard guard(real.device());
  const at::Tensor out = empty_like_dense(operands.real);
  cuda::interpolate(batch_call(operands.real, operands.rows), pointer(operands.fake),
                    pointer(operands.real), pointer(operands.alpha), operands.alpha_per_element,
                    mutable_pointer(out));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return restore_layout(out, operands.real, real);
}

}  // namespace ganloss::cuda
