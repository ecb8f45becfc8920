// The segments of one multi-tensor loss, as the ops pass them and as the backends take them:
//
//   total = sum over s of  scale[s] * mean( w_s * phi_s(a_s - b_s) )
//
// Lists in an op schema must be dense, so `operands` says for each segment whether it takes the
// next tensor of b and of weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "../math/terms.h"
#include "checks.h"
#include "layout.h"

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
  // An entry of  a ++ b.
  const at::Tensor& differentiable(int64_t index) const {
    return index < size() ? a[index] : b[index - size()];
  }

  // Float64 as soon as one segment is, else float32: the dtype of the loss.
  at::ScalarType loss_dtype() const {
    for (const at::Tensor& tensor : a)
      if (tensor.scalar_type() == at::kDouble) return at::kDouble;
    return at::kFloat;
  }
};

// Argument checks for direct calls, as in checks.h.
void check_segments(const Segments& segments);
void check_wanted(const char* name, const Segments& segments, at::IntArrayRef wanted);
void check_incoming(const Segments& segments, const std::optional<at::Tensor>& grad_total,
                    const std::optional<at::Tensor>& grad_values);

// One segment with its operands in one memory order.
struct SegmentOperands {
  at::Tensor a;       // dense
  at::Tensor b;       // undefined, 0-d, or in the layout of a
  at::Tensor weight;  // undefined, or in the layout of a and its compute dtype
  Dtype dtype;        // of a
  math::TermSpec term;

  bool is_pair() const { return b.defined() && b.dim() > 0; }
  bool has_scalar_b() const { return b.defined() && b.dim() == 0; }
};

// The segments of a call, checked, each as an Operands, which extends SegmentOperands. With
// `common`, what is not 0-d is converted to that dtype.
//
// 0-d and [1] are the same operand to a kernel: with one element a pair is a scalar.
template <typename Operands>
std::vector<Operands> resolve(const Segments& segments,
                              std::optional<at::ScalarType> common = std::nullopt) {
  check_segments(segments);
  const auto in_common = [&](const at::Tensor& t) { return common ? in_dtype(t, *common) : t; };
  std::vector<Operands> resolved(segments.size());
  const at::Tensor* b = segments.b.data();
  const at::Tensor* weight = segments.weights.data();
  for (int64_t s = 0; s < segments.size(); ++s) {
    SegmentOperands& segment = resolved[s];
    segment.a = dense(in_common(segments.a[s]));
    segment.dtype = dtype_of(segment.a);
    segment.term = segments.term(s);
    if (segments.has_b(s)) {
      segment.b = b->dim() == 0 ? *b : in_layout_of(in_common(*b), segment.a);
      ++b;
    }
    if (segments.has_weight(s))
      segment.weight = in_layout_of(in_dtype(*weight++, compute_dtype(segment.a)), segment.a);
  }
  return resolved;
}

// For every b its segment.
std::vector<int64_t> segments_with_b(const Segments& segments);

// Calls visitor(position in wanted, segment, whether it is the segment's b).
template <typename Visitor>
void for_each_wanted(const Segments& segments, at::IntArrayRef wanted, Visitor&& visitor) {
  const std::vector<int64_t> with_b = segments_with_b(segments);
  for (size_t k = 0; k < wanted.size(); ++k) {
    const bool is_b = wanted[k] >= segments.size();
    visitor(k, is_b ? with_b[wanted[k] - segments.size()] : wanted[k], is_b);
  }
}

// What goes with the operands of one segment: the gradients that a backward writes, or the
// directions that a double backward takes. Undefined where there is none.
struct Gradients {
  at::Tensor a;  // in the layout of a
  at::Tensor b;  // 0-d where b is, else in the layout of a

  void* a_at(int64_t offset) const { return a.defined() ? at_offset_mutable(a, offset) : nullptr; }
  void* b_at(int64_t offset) const {
    return b.defined() && b.dim() > 0 ? at_offset_mutable(b, offset) : nullptr;
  }
  bool has_scalar_b() const { return b.defined() && b.dim() == 0; }
};

// The wanted gradients, made by make_like(tensor): the list to return, and the same by segment.
template <typename Operands, typename MakeLike>
std::vector<at::Tensor> allocate(const Segments& segments, const std::vector<Operands>& resolved,
                                 at::IntArrayRef wanted, MakeLike&& make_like,
                                 std::vector<Gradients>& by_segment) {
  std::vector<at::Tensor> list(wanted.size());
  by_segment.resize(resolved.size());
  for_each_wanted(segments, wanted, [&](size_t k, int64_t s, bool is_b) {
    const SegmentOperands& segment = resolved[s];
    list[k] = make_like(is_b && segment.has_scalar_b() ? segment.b : segment.a);
    (is_b ? by_segment[s].b : by_segment[s].a) = list[k];
  });
  return list;
}

// The directions of a double backward, checked, by segment. Those of a 0-d b are as they came.
template <typename Operands>
std::vector<Gradients> resolve_directions(const Segments& segments,
                                          const std::vector<Operands>& resolved,
                                          at::TensorList directions, at::IntArrayRef wanted) {
  check_wanted("wanted", segments, wanted);
  TORCH_CHECK_VALUE(directions.size() == wanted.size(), "directions: expected ", wanted.size(),
                    " tensors, one for each entry of wanted, got ", directions.size());
  std::vector<Gradients> by_segment(resolved.size());
  for_each_wanted(segments, wanted, [&](size_t k, int64_t s, bool is_b) {
    const SegmentOperands& segment = resolved[s];
    if (is_b && segment.has_scalar_b()) {
      check_shape("directions", directions[k], {}, segments.a[s]);
      by_segment[s].b = directions[k];
    } else {
      check_same("directions", directions[k], segments.a[s]);
      (is_b ? by_segment[s].b : by_segment[s].a) =
          in_layout_of(in_dtype(directions[k], segment.a.scalar_type()), segment.a);
    }
  });
  return by_segment;
}

}  // namespace ganloss
