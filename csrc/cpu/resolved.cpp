#include "resolved.h"

#include "../checks.h"

namespace ganloss::cpu {

// 0-d and [1] are the same operand to a kernel: with one element a pair is a scalar.
std::vector<Resolved> resolve(const Segments& segments) {
  check_segments(segments);
  std::vector<Resolved> resolved(segments.size());
  const at::Tensor* b = segments.b.data();
  const at::Tensor* weight = segments.weights.data();
  for (int64_t s = 0; s < segments.size(); ++s) {
    Resolved& segment = resolved[s];
    segment.a = dense(segments.a[s]);
    segment.dtype = dtype_of(segment.a);
    segment.term = segments.term(s);
    if (segments.has_b(s)) {
      segment.b = b->dim() == 0 ? *b : in_layout_of(*b, segment.a);
      if (segment.has_scalar_b()) segment.b_scalar = scalar_value(segment.b);
      ++b;
    }
    if (segments.has_weight(s))
      segment.weight = in_layout_of((weight++)->to(compute_dtype(segment.a)), segment.a);
  }
  return resolved;
}

std::vector<Piece> cut(const std::vector<Resolved>& resolved) {
  c10::SmallVector<int64_t, 8> lengths;
  for (const Resolved& segment : resolved) lengths.push_back(segment.a.numel());
  return cut_rows(lengths);
}

Incoming::Incoming(const at::Tensor& grad_total, const at::Tensor& grad_values)
    : has_total_(grad_total.defined()) {
  if (has_total_) total_ = scalar_value(grad_total);
  if (!grad_values.defined()) return;
  const at::Tensor values = grad_values.to(at::kDouble).contiguous();
  const double* begin = values.const_data_ptr<double>();
  values_.assign(begin, begin + values.numel());
}

std::vector<int64_t> segments_with_b(const Segments& segments) {
  std::vector<int64_t> found;
  for (int64_t s = 0; s < segments.size(); ++s)
    if (segments.has_b(s)) found.push_back(s);
  return found;
}

void check_wanted(const char* name, const Segments& segments, at::IntArrayRef wanted) {
  const int64_t limit = segments.size() + static_cast<int64_t>(segments.b.size());
  for (int64_t index : wanted)
    TORCH_CHECK_VALUE(0 <= index && index < limit, name, ": expected indices from 0 to ", limit - 1,
                      ", got ", index);
}

}  // namespace ganloss::cpu
