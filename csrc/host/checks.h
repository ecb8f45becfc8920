// Argument checks for direct calls of the ops. The public Python functions have checked before
// and say more; these keep a wrong call from reading memory that is not there.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "../math/penalty.h"
#include "dtype.h"

namespace ganloss {

inline void check_operand(const char* name, const at::Tensor& tensor, const at::Tensor& like) {
  TORCH_CHECK_VALUE(tensor.device() == like.device(), name, ": expected device ", like.device(),
                    ", got ", tensor.device());
  TORCH_CHECK_TYPE(is_supported(tensor.scalar_type()), name,
                   ": expected float16, bfloat16, float32 or float64, got ", tensor.scalar_type());
}

// `tensor` runs beside `like`: same device, shape and dtype.
inline void check_same(const char* name, const at::Tensor& tensor, const at::Tensor& like) {
  check_operand(name, tensor, like);
  TORCH_CHECK_VALUE(tensor.sizes() == like.sizes(), name, ": expected shape ", like.sizes(),
                    ", got ", tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == like.scalar_type(), name, ": expected dtype ",
                   like.scalar_type(), ", got ", tensor.scalar_type());
}

// A small tensor that goes with `like`, whose values are read one by one.
inline void check_shape(const char* name, const at::Tensor& tensor, at::IntArrayRef shape,
                        const at::Tensor& like) {
  check_operand(name, tensor, like);
  TORCH_CHECK_VALUE(tensor.sizes() == shape, name, ": expected shape ", shape, ", got ",
                    tensor.sizes());
}

// The seed is one 64-bit integer beside the tensor, so that a captured graph can read a new one.
inline void check_perturb(const at::Tensor& inputs, const at::Tensor& seed) {
  check_operand("inputs", inputs, inputs);
  TORCH_CHECK_VALUE(seed.device() == inputs.device(), "seed: expected device ", inputs.device(),
                    ", got ", seed.device());
  TORCH_CHECK_TYPE(seed.scalar_type() == at::kLong, "seed: expected int64, got ",
                   seed.scalar_type());
  TORCH_CHECK_VALUE(seed.numel() == 1, "seed: expected one element, got shape ", seed.sizes());
}

inline void check_penalty(const at::Tensor& gradient, int64_t mode) {
  check_operand("gradient", gradient, gradient);
  TORCH_CHECK_VALUE(gradient.dim() > 0, "gradient: expected a batch dimension, got a 0-d tensor");
  TORCH_CHECK_VALUE(0 <= mode && mode < math::kPenaltyModeCount, "mode: expected 0 to ",
                    math::kPenaltyModeCount - 1, ", got ", mode);
}

inline void check_penalty_backward(const at::Tensor& grad_penalty, const at::Tensor& gradient,
                                   const at::Tensor& norms, int64_t mode) {
  check_penalty(gradient, mode);
  check_shape("grad_penalty", grad_penalty, {}, gradient);
  check_shape("norms", norms, {gradient.size(0)}, gradient);
}

}  // namespace ganloss
