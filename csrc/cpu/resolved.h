// The segments of a call as the CPU kernels walk them: operands in one memory order, pieces, the
// factors that come in and the tensors that gradients go to.
#pragma once

#include "../math/terms.h"
#include "../ops.h"
#include "launch.h"

namespace ganloss::cpu {

// One segment with its operands in one memory order.
struct Resolved {
  at::Tensor a;
  at::Tensor b;       // undefined, 0-d, or in the layout of a
  at::Tensor weight;  // undefined, or in the layout of a and its compute dtype
  Dtype dtype;
  math::TermSpec term;
  double b_scalar = 0.0;

  bool is_pair() const { return b.defined() && b.dim() > 0; }
  bool has_scalar_b() const { return b.defined() && b.dim() == 0; }
  // Of a mean over nothing: NaN for the value, and no elements that could want a gradient.
  double inverse_count() const { return 1.0 / static_cast<double>(a.numel()); }

  TermSpan span(const Piece& piece) const {
    return {at_offset(a, piece.offset), is_pair() ? at_offset(b, piece.offset) : nullptr,
            weight.defined() ? at_offset(weight, piece.offset) : nullptr, b_scalar, piece.count};
  }
};

std::vector<Resolved> resolve(const Segments& segments);

// The pieces of all segments: the row of a piece is its segment.
std::vector<Piece> cut(const std::vector<Resolved>& resolved);

// The gradients of total and values, as that of each mean.
class Incoming {
 public:
  Incoming(const at::Tensor& grad_total, const at::Tensor& grad_values);  // each may be undefined

  double of_mean(int64_t s, double scale) const {
    return (has_total_ ? total_ * scale : 0.0) + (values_.empty() ? 0.0 : values_[s]);
  }
  bool is_one() const { return has_total_ && total_ == 1.0 && values_.empty(); }

 private:
  bool has_total_;
  double total_ = 0.0;
  std::vector<double> values_;  // [S] or empty
};

// Where the gradients of one segment go.
struct Outputs {
  at::Tensor a;
  at::Tensor b;

  void* a_at(int64_t offset) const { return a.defined() ? at_offset_mutable(a, offset) : nullptr; }
  void* b_at(int64_t offset) const {
    return b.defined() && b.dim() > 0 ? at_offset_mutable(b, offset) : nullptr;
  }
  bool has_scalar_b() const { return b.defined() && b.dim() == 0; }
};

void check_wanted(const char* name, const Segments& segments, at::IntArrayRef wanted);

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

}  // namespace ganloss::cpu
