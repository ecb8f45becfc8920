// The ATen side of norm_penalty on CUDA.
#include "../host/samples.h"
#include "../ops.h"
#include "device.h"
#include "ticket.h"

namespace ganloss::cuda {

namespace {

Penalty penalty_of(int64_t mode, double target, double scale) {
  return {static_cast<math::PenaltyMode>(mode), target, scale};
}

// Calls launch(call) for a launch that sums over the samples of g.
template <typename Launch>
void run_sum(const at::Tensor& g, Launch&& launch) {
  BatchCall call = batch_call(g, g.size(0));
  const at::Tensor workspace = empty_bytes(batch_workspace_bytes(call), g);
  const Ticket ticket(g);
  call.workspace = workspace.mutable_data_ptr();
  call.ticket = ticket.get();
  launch(call);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> norm_penalty(const at::Tensor& gradient, int64_t mode,
                                                double target, double scale) {
  check_penalty(gradient, mode);
  const c10::cuda::OptionalCUDAGuard guard(gradient.device());
  const at::Tensor g = dense_by_sample(gradient);
  const auto options = g.options().dtype(compute_dtype(g));
  const at::Tensor penalty = at::empty({}, options);
  const at::Tensor norms = at::empty({g.size(0)}, options);
  run_sum(g, [&](const BatchCall& call) {
    cuda::norm_penalty(call, penalty_of(mode, target, scale), pointer(g), mutable_pointer(penalty),
                       mutable_pointer(norms));
  });
  return {penalty, norms};
}

at::Tensor norm_penalty_backward(const at::Tensor& grad_penalty, const at::Tensor& gradient,
                                 const at::Tensor& norms, int64_t mode, double target,
                                 double scale) {
  check_penalty_backward(grad_penalty, gradient, norms, mode);
  const c10::cuda::OptionalCUDAGuard guard(gradient.device());
  const at::Tensor g = dense_by_sample(gradient);
  const at::Tensor incoming = in_dtype(grad_penalty, compute_dtype(g));
  const at::Tensor n = in_dtype(norms, compute_dtype(g)).contiguous();
  const at::Tensor out = empty_like_dense(g);
  cuda::norm_penalty_backward(batch_call(g, g.size(0)), penalty_of(mode, target, scale),
                              pointer(incoming), pointer(g), pointer(n), mutable_pointer(out));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return restore_layout(out, g, gradient);
}

std::tuple<at::Tensor, at::Tensor> norm_penalty_double_backward(
    const at::Tensor& direction, const at::Tensor& grad_penalty, const at::Tensor& gradient,
    const at::Tensor& norms, int64_t mode, double target, double scale) {
  check_penalty_backward(grad_penalty, gradient, norms, mode);
  check_same("direction", direction, gradient);
  const c10::cuda::OptionalCUDAGuard guard(gradient.device());
  const at::Tensor g = dense_by_sample(gradient);
  const at::Tensor v = in_layout_of(direction, g);
  const at::ScalarType compute = compute_dtype(g);
  const at::Tensor incoming = in_dtype(grad_penalty, compute);
  const at::Tensor n = in_dtype(norms, compute).contiguous();
  const at::Tensor dots = at::empty_like(n), grad_grad = at::empty({}, n.options());
  const at::Tensor out = empty_like_dense(g);
  run_sum(g, [&](const BatchCall& call) {
    cuda::norm_penalty_double_backward(
        call, penalty_of(mode, target, scale), pointer(v), pointer(incoming), pointer(g),
        pointer(n), mutable_pointer(dots), mutable_pointer(grad_grad), mutable_pointer(out));
  });
  return {in_dtype(grad_grad, grad_penalty.scalar_type()), restore_layout(out, g, gradient)};
}

}  // namespace ganloss::cuda
