// The CUDA implementations of the ops, as registration.cpp registers them. Signatures and
// semantics are those of ../ops.h.
#pragma once

#include "../ops.h"

namespace ganloss::cuda {

std::tuple<at::Tensor, at::Tensor, at::Tensor> multi_tensor_loss(GANLOSS_SEGMENT_PARAMETERS,
                                                                 bool with_statistics);
Tensors multi_tensor_loss_backward(const std::optional<at::Tensor>& grad_total,
                                   const std::optional<at::Tensor>& grad_values,
                                   GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted);
std::tuple<at::Tensor, at::Tensor, Tensors> multi_tensor_loss_double_backward(
    at::TensorList directions, const std::optional<at::Tensor>& grad_total,
    const std::optional<at::Tensor>& grad_values, GANLOSS_SEGMENT_PARAMETERS,
    at::IntArrayRef wanted, at::IntArrayRef wanted_second);

at::Tensor interpolate(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha);
at::Tensor perturb(const at::Tensor& inputs, double sigma, const at::Tensor& seed);

std::tuple<at::Tensor, at::Tensor> norm_penalty(const at::Tensor& gradient, int64_t mode,
                                                         double target, double scale);
at::Tensor norm_penalty_backward(const at::Tensor& grad_penalty,
                                          const at::Tensor& gradient, const at::Tensor& norms,
                                          int64_t mode, double target, double scale);
std::tuple<at::Tensor, at::Tensor> norm_penalty_double_backward(
    const at::Tensor& direction, const at::Tensor& grad_penalty, const at::Tensor& gradient,
    const at::Tensor& norms, int64_t mode, double target, double scale);

}  // namespace ganloss::cuda
