// Batches as rows of memory: a sample is a row, and what goes with it lies in the same order.
#pragma once

#include "checks.h"
#include "layout.h"

namespace ganloss {

// Elements of one of `rows` rows.
inline int64_t row_length(const at::Tensor& batch, int64_t rows) {
  return rows == 0 ? 0 : batch.numel() / rows;
}

// The operands of interpolate. One alpha serves a row: a sample, or the whole batch.
struct InterpolateOperands {
  at::Tensor real;   // dense
  at::Tensor fake;   // in the layout of real
  at::Tensor alpha;  // in the compute dtype: [rows], or in the layout of real
  bool alpha_per_element;
  int64_t rows;
};

inline InterpolateOperands interpolate_operands(const at::Tensor& real, const at::Tensor& fake,
                                                const at::Tensor& alpha) {
  check_operand("real", real, real);
  check_same("fake", fake, real);
  check_operand("alpha", alpha, real);
  const bool per_sample = alpha.dim() == 1 && real.dim() >= 1 && alpha.size(0) == real.size(0);
  const bool per_element = !per_sample && alpha.dim() > 0;
  TORCH_CHECK_VALUE(!per_element || alpha.sizes() == real.sizes(),
                    "alpha: expected a 0-d tensor, one value for each of the ",
                    real.dim() ? real.size(0) : 1, " samples, or shape ", real.sizes(), ", got ",
                    alpha.sizes());
  const at::Tensor r = per_sample ? dense_by_sample(real) : dense(real);
  const at::Tensor weight = in_dtype(alpha, compute_dtype(real));
  return {r, in_layout_of(fake, r), per_element ? in_layout_of(weight, r) : weight.contiguous(),
          per_element, per_sample ? r.size(0) : 1};
}

}  // namespace ganloss
