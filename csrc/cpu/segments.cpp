#include "segments.h"

namespace ganloss::cpu {

std::vector<Resolved> resolve(const Segments& segments) {
  auto resolved = ganloss::resolve<Resolved>(segments);
  for (Resolved& segment : resolved)
    if (segment.has_scalar_b()) segment.b_scalar = scalar_value(segment.b);
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
  if (grad_values.defined()) values_ = to_doubles(grad_values);
}

}  // namespace ganloss::cpu
