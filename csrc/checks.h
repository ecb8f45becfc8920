// Argument checks for direct calls of the ops. The public Python functions have checked before
// and say more; these keep a wrong call from reading memory that is not there.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "math/penalty.h"
#include "segments.h"

namespace ganloss {

inline bool is_supported(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf ||
         dtype == at::kBFloat16;
}

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

inline void check_segments(const Segments& segments) {
  const int64_t count = segments.size();
  TORCH_CHECK_VALUE(count > 0, "a: expected at least one segment, got none");
  const auto check_length = [&](const char* name, size_t length, int64_t expected) {
    TORCH_CHECK_VALUE(static_cast<int64_t>(length) == expected, name, ": expected ", expected,
                      " entries for ", count, " segments, got ", length);
  };
  check_length("operands", segments.operands.size(), count);
  check_length("terms", segments.terms.size(), count);
  check_length("parameters", segments.parameters.size(), 2 * count);
  check_length("scale", segments.scale.size(), count);
  int64_t with_b = 0, with_weight = 0;
  for (int64_t s = 0; s < count; ++s) {
    with_b += segments.has_b(s);
    with_weight += segments.has_weight(s);
  }
  check_length("b", segments.b.size(), with_b);
  check_length("weights", segments.weights.size(), with_weight);

  const at::Tensor* b = segments.b.data();
  const at::Tensor* weight = segments.weights.data();
  for (int64_t s = 0; s < count; ++s) {
    const at::Tensor& a = segments.a[s];
    check_operand("a", a, segments.a[0]);
    TORCH_CHECK_VALUE(0 <= segments.terms[s] && segments.terms[s] < math::kTermCount,
                      "terms: expected codes from 0 to ", math::kTermCount - 1, ", got ",
                      segments.terms[s]);
    if (segments.has_b(s)) {
      if (b->dim() == 0)
        check_operand("b", *b, a);
      else
        check_same("b", *b, a);
      ++b;
    }
    if (segments.has_weight(s)) {
      check_operand("weights", *weight, a);
      TORCH_CHECK_VALUE(weight->sizes() == a.sizes(), "weights: expected shape ", a.sizes(),
                        ", got ", weight->sizes());
      ++weight;
    }
  }
}

// One 64-bit integer beside the tensor, so that a captured graph can read a new one.
inline void check_seed(const at::Tensor& seed, const at::Tensor& like) {
  TORCH_CHECK_VALUE(seed.device() == like.device(), "seed: expected device ", like.device(),
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
