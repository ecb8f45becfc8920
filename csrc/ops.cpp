// The ops through the dispatcher, and what holds for all of them.
#include "ops.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace ganloss {

#define GANLOSS_DISPATCH(name)                                        \
  static auto op = c10::Dispatcher::singleton()                       \
                       .findSchemaOrThrow("ganloss_fast::" #name, "") \
                       .typed<decltype(name)>();                      \
  return op.call

std::tuple<at::Tensor, at::Tensor, at::Tensor> multi_tensor_loss(GANLOSS_SEGMENT_PARAMETERS,
                                                                 bool with_statistics) {
  GANLOSS_DISPATCH(multi_tensor_loss)(GANLOSS_SEGMENT_ARGUMENTS, with_statistics);
}
Tensors multi_tensor_loss_backward(const std::optional<at::Tensor>& grad_total,
                                   const std::optional<at::Tensor>& grad_values,
                                   GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted) {
  GANLOSS_DISPATCH(multi_tensor_loss_backward)
  (grad_total, grad_values, GANLOSS_SEGMENT_ARGUMENTS, wanted);
}
std::tuple<at::Tensor, at::Tensor, Tensors> multi_tensor_loss_double_backward(
    at::TensorList directions, const std::optional<at::Tensor>& grad_total,
    const std::optional<at::Tensor>& grad_values, GANLOSS_SEGMENT_PARAMETERS,
    at::IntArrayRef wanted, at::IntArrayRef wanted_second) {
  GANLOSS_DISPATCH(multi_tensor_loss_double_backward)
  (directions, grad_total, grad_values, GANLOSS_SEGMENT_ARGUMENTS, wanted, wanted_second);
}
at::Tensor interpolate(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha) {
  GANLOSS_DISPATCH(interpolate)(real, fake, alpha);
}
at::Tensor perturb(const at::Tensor& inputs, double sigma, const at::Tensor& seed) {
  GANLOSS_DISPATCH(perturb)(inputs, sigma, seed);
}
std::tuple<at::Tensor, at::Tensor> norm_penalty(const at::Tensor& gradient, int64_t mode,
                                                         double target, double scale) {
  GANLOSS_DISPATCH(norm_penalty)(gradient, mode, target, scale);
}
at::Tensor norm_penalty_backward(const at::Tensor& grad_penalty,
                                          const at::Tensor& gradient, const at::Tensor& norms,
                                          int64_t mode, double target, double scale) {
  GANLOSS_DISPATCH(norm_penalty_backward)
  (grad_penalty, gradient, norms, mode, target, scale);
}
std::tuple<at::Tensor, at::Tensor> norm_penalty_double_backward(
    const at::Tensor& direction, const at::Tensor& grad_penalty, const at::Tensor& gradient,
    const at::Tensor& norms, int64_t mode, double target, double scale) {
  GANLOSS_DISPATCH(norm_penalty_double_backward)
  (direction, grad_penalty, gradient, norms, mode, target, scale);
}

// vmap would run a slow loop, or fail with a message about boxing.
void refuse_vmap(const c10::OperatorHandle& op, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, op.schema().name(),
                              " has no batching rule for torch.vmap: a loss is a mean over its "
                              "whole batch. Use ganloss_fast.use_backend('reference') under vmap.");
}

TORCH_LIBRARY_IMPL(ganloss_fast, FuncTorchBatched, m) {
  for (const char* name :
       {"multi_tensor_loss", "multi_tensor_loss_backward", "multi_tensor_loss_double_backward",
        "interpolate", "perturb", "norm_penalty", "norm_penalty_backward",
        "norm_penalty_double_backward"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&refuse_vmap>());
}

}  // namespace ganloss
