#include "segments.h"

namespace ganloss {

void check_segments(const Segments& segments) {
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

void check_wanted(const char* name, const Segments& segments, at::IntArrayRef wanted) {
  const int64_t limit = segments.size() + static_cast<int64_t>(segments.b.size());
  for (int64_t index : wanted)
    TORCH_CHECK_VALUE(0 <= index && index < limit, name, ": expected indices from 0 to ", limit - 1,
                      ", got ", index);
}

void check_incoming(const Segments& segments, const std::optional<at::Tensor>& grad_total,
                    const std::optional<at::Tensor>& grad_values) {
  if (grad_total) check_shape("grad_total", *grad_total, {}, segments.a[0]);
  if (grad_values) check_shape("grad_values", *grad_values, {segments.size()}, segments.a[0]);
}

std::vector<int64_t> segments_with_b(const Segments& segments) {
  std::vector<int64_t> found;
  for (int64_t s = 0; s < segments.size(); ++s)
    if (segments.has_b(s)) found.push_back(s);
  return found;
}

}  // namespace ganloss
