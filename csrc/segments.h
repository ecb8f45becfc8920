// The segments of one multi-tensor loss, as the ops pass them:
//
//   total = sum over s of  scale[s] * mean( w_s * phi_s(a_s - b_s) )
//
// Lists in an op schema must be dense, so `operands` says for each segment whether it takes the
// next tensor of b and of weights.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/TensorBody.h>

#include "math/terms.h"

namespace ganloss {

enum OperandBits : int64_t { kHasB = 1, kHasWeight = 2 };

struct Segments {
  at::TensorList a;                 // [S]
  at::TensorList b;                 // one for each segment with kHasB
  at::TensorList weights;           // one for each segment with kHasWeight
  at::IntArrayRef operands;         // [S] OperandBits
  at::IntArrayRef terms;            // [S] term codes
  at::ArrayRef<double> parameters;  // [2 S]
  at::ArrayRef<double> scale;       // [S]

  int64_t size() const { return static_cast<int64_t>(a.size()); }
  bool has_b(int64_t s) const { return operands[s] & kHasB; }
  bool has_weight(int64_t s) const { return operands[s] & kHasWeight; }
  math::TermSpec term(int64_t s) const {
    return {static_cast<int>(terms[s]), parameters[2 * s], parameters[2 * s + 1]};
  }

  // Float64 as soon as one segment is, else float32: the dtype of the loss.
  at::ScalarType loss_dtype() const {
    for (const at::Tensor& tensor : a)
      if (tensor.scalar_type() == at::kDouble) return at::kDouble;
    return at::kFloat;
  }
};

// The dtype that a tensor is computed in.
inline at::ScalarType compute_dtype(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace ganloss

// The part of every multi-tensor loss signature that describes the segments, and its names.
#define GANLOSS_SEGMENT_PARAMETERS                                                      \
  at::TensorList a, at::TensorList b, at::TensorList weights, at::IntArrayRef operands, \
      at::IntArrayRef terms, at::ArrayRef<double> parameters, at::ArrayRef<double> scale
#define GANLOSS_SEGMENT_ARGUMENTS a, b, weights, operands, terms, parameters, scale
