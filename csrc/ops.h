// The ops as C++ functions. Each goes through the dispatcher, so a call from an autograd node
// finds the backend of its tensors, and a tracer sees it.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>
#include <vector>

#include "segments.h"

namespace ganloss {

using Tensors = std::vector<at::Tensor>;

// -> total [], values [S], statistics [S, 4] or [0, 4]
std::tuple<at::Tensor, at::Tensor, at::Tensor> multi_tensor_loss(GANLOSS_SEGMENT_PARAMETERS,
                                                                 bool with_statistics);

// Gradients of the tensors of  a ++ b  whose indices are in `wanted`, in that order.
Tensors multi_tensor_loss_backward(const std::optional<at::Tensor>& grad_total,
                                   const std::optional<at::Tensor>& grad_values,
                                   GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted);

// `directions` are the gradients of the outputs of the backward, one for each of its `wanted`.
// -> grad of grad_total [], grad of grad_values [S], gradients of `wanted_second` of  a ++ b
std::tuple<at::Tensor, at::Tensor, Tensors> multi_tensor_loss_double_backward(
    at::TensorList directions, const std::optional<at::Tensor>& grad_total,
    const std::optional<at::Tensor>& grad_values, GANLOSS_SEGMENT_PARAMETERS,
    at::IntArrayRef wanted, at::IntArrayRef wanted_second);

// alpha: [], [B] or the shape of real.
at::Tensor interpolate(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha);

// inputs + sigma * standard normal noise of Philox under the seed [] (int64); see math/philox.h.
at::Tensor perturb(const at::Tensor& inputs, double sigma, const at::Tensor& seed);

// gradient [B, ...] -> penalty [], norms [B]
std::tuple<at::Tensor, at::Tensor> norm_penalty(const at::Tensor& gradient, int64_t mode,
                                                         double target, double scale);

at::Tensor norm_penalty_backward(const at::Tensor& grad_penalty,
                                          const at::Tensor& gradient, const at::Tensor& norms,
                                          int64_t mode, double target, double scale);

// -> grad of grad_penalty [], grad of gradient [B, ...]
std::tuple<at::Tensor, at::Tensor> norm_penalty_double_backward(
    const at::Tensor& direction, const at::Tensor& grad_penalty, const at::Tensor& gradient,
    const at::Tensor& norms, int64_t mode, double target, double scale);

}  // namespace ganloss
