// The segments of a call as the CPU kernels walk them: spans, pieces, and the factors that come in.
#pragma once

#include "../host/segments.h"
#include "launch.h"

namespace ganloss::cpu {

struct Resolved : SegmentOperands {
  double b_scalar = 0.0;  // the value of a 0-d b

  // Of a mean over nothing: NaN for the value, and no elements that could want a gradient.
  double inverse_count() const { return 1.0 / static_cast<double>(a.numel()); }

  TermSpan span(const Piece& piece) const {
    return {at_offset(a, piece.offset), is_pair() ? at_offset(b, piece.offset) : nullptr,
            weight.defined() ? at_offset(weight, piece.offset) : nullptr, b_scalar, piece.count};
  }
};

// Checks the segments of a call.
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

}  // namespace ganloss::cpu
