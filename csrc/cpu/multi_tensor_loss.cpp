// multi_tensor_loss on the CPU: segments to pieces, kernels over pieces, sums in piece order.
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "../checks.h"
#include "../math/statistics.h"
#include "../ops.h"
#include "launch.h"
#include "one_pass.h"

namespace ganloss::cpu {

namespace {

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

std::vector<Piece> cut(const std::vector<Resolved>& segments) {
  c10::SmallVector<int64_t, 8> lengths;
  for (const Resolved& segment : segments) lengths.push_back(segment.a.numel());
  return cut_rows(lengths);
}

// d total / d sum_s of each segment: its incoming gradient over its number of elements.
std::vector<double> incoming(const Segments& segments, const std::vector<Resolved>& resolved,
                             const std::optional<at::Tensor>& grad_total,
                             const std::optional<at::Tensor>& grad_values) {
  if (grad_total) check_shape("grad_total", *grad_total, {}, segments.a[0]);
  if (grad_values) check_shape("grad_values", *grad_values, {segments.size()}, segments.a[0]);
  std::vector<double> factors(resolved.size(), 0.0);
  const double total = grad_total ? scalar_value(*grad_total) : 0.0;
  const at::Tensor values = grad_values ? grad_values->to(at::kDouble).contiguous() : at::Tensor();
  for (size_t s = 0; s < resolved.size(); ++s) {
    if (grad_total) factors[s] += total * segments.scale[s];
    if (values.defined()) factors[s] += values.const_data_ptr<double>()[s];
    factors[s] *= resolved[s].inverse_count();
  }
  return factors;
}

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

// Calls visitor(position in wanted, segment, whether it is the segment's b).
template <typename Visitor>
void for_each_wanted(const Segments& segments, at::IntArrayRef wanted, Visitor&& visitor) {
  const std::vector<int64_t> with_b = segments_with_b(segments);
  for (size_t k = 0; k < wanted.size(); ++k) {
    const bool is_b = wanted[k] >= segments.size();
    visitor(k, is_b ? with_b[wanted[k] - segments.size()] : wanted[k], is_b);
  }
}

// Allocates the wanted gradients: the list to return, and the same by segment.
Tensors allocate(const Segments& segments, const std::vector<Resolved>& resolved,
                 at::IntArrayRef wanted, std::vector<Outputs>& by_segment) {
  Tensors list(wanted.size());
  by_segment.resize(resolved.size());
  for_each_wanted(segments, wanted, [&](size_t k, int64_t s, bool is_b) {
    const Resolved& segment = resolved[s];
    list[k] = is_b && segment.has_scalar_b() ? empty_small({}, segment.b.scalar_type())
                                             : empty_output(segment.a);
    (is_b ? by_segment[s].b : by_segment[s].a) = list[k];
  });
  return list;
}

// The gradient of a 0-d b is minus the sum of the gradients of a.
void fill_scalar_b(const std::vector<Outputs>& outputs, const std::vector<double>& sums) {
  for (size_t s = 0; s < outputs.size(); ++s)
    if (outputs[s].has_scalar_b()) outputs[s].b.fill_(-sums[s]);
}

void write_scalar(const at::Tensor& tensor, int64_t index, double value) {
  if (tensor.scalar_type() == at::kDouble)
    tensor.mutable_data_ptr<double>()[index] = value;
  else
    tensor.mutable_data_ptr<float>()[index] = static_cast<float>(value);
}

// Sums over segments as their means [S] and the scaled total [] of those.
std::tuple<at::Tensor, at::Tensor> means_of(const Segments& segments,
                                            const std::vector<Resolved>& resolved,
                                            const std::vector<double>& sums) {
  const at::ScalarType dtype = segments.loss_dtype();
  at::Tensor values = empty_small({segments.size()}, dtype);
  at::Tensor total = empty_small({}, dtype);
  double sum = 0.0;
  for (int64_t s = 0; s < segments.size(); ++s) {
    const double mean = sums[s] * resolved[s].inverse_count();
    write_scalar(values, s, mean);
    sum += segments.scale[s] * mean;
  }
  write_scalar(total, 0, sum);
  return {total, values};
}

// The statistics row of one segment: mean, standard deviation, mean sign, non-finite count.
template <typename scalar_t>
void write_statistics(scalar_t* row, const Statistics& sums, double shift, double inverse_count) {
  const double mean = sums.sum * inverse_count;
  const double variance = sums.sum_of_squares * inverse_count - mean * mean;
  row[0] = static_cast<scalar_t>(shift + mean);
  row[1] = static_cast<scalar_t>(std::sqrt(variance < 0.0 ? 0.0 : variance));
  row[2] = static_cast<scalar_t>(sums.sum_of_signs * inverse_count);
  row[3] = static_cast<scalar_t>(sums.nonfinite);
}

void fill_statistics(const at::Tensor& statistics, const std::vector<Resolved>& segments,
                     const std::vector<Piece>& pieces) {
  std::vector<double> shifts(segments.size(), 0.0);
  for (size_t s = 0; s < segments.size(); ++s) {
    const at::Tensor& a = segments[s].a;
    if (a.numel() == 0) continue;
    double elements[math::kCenterElements];
    for (int k = 0; k < math::kCenterElements; ++k)
      elements[k] = scalar_value(
          a.as_strided({}, {}, a.storage_offset() + math::center_element(k, a.numel())));
    shifts[s] = math::center_of(elements);
  }
  std::vector<Statistics> partial(pieces.size());
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const Resolved& segment = segments[piece.row];
    partial[index] = kernels().statistics(segment.dtype, at_offset(segment.a, piece.offset),
                                          shifts[piece.row], piece.count);
  });
  std::vector<Statistics> sums(segments.size(), Statistics{0.0, 0.0, 0.0, 0.0});
  for (size_t index = 0; index < pieces.size(); ++index) {
    Statistics& sum = sums[pieces[index].row];
    sum.sum += partial[index].sum;
    sum.sum_of_squares += partial[index].sum_of_squares;
    sum.sum_of_signs += partial[index].sum_of_signs;
    sum.nonfinite += partial[index].nonfinite;
  }
  for (size_t s = 0; s < segments.size(); ++s) {
    void* row = at_offset_mutable(statistics, 4 * static_cast<int64_t>(s));
    if (statistics.scalar_type() == at::kDouble)
      write_statistics(static_cast<double*>(row), sums[s], shifts[s], segments[s].inverse_count());
    else
      write_statistics(static_cast<float*>(row), sums[s], shifts[s], segments[s].inverse_count());
  }
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> multi_tensor_loss(GANLOSS_SEGMENT_PARAMETERS,
                                                                 bool with_statistics) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  const std::vector<Resolved> resolved = resolve(segments);
  const std::vector<Piece> pieces = cut(resolved);
  std::vector<double> partial(pieces.size());
  for_each_piece(pieces, [&](int64_t index) {
    const Resolved& segment = resolved[pieces[index].row];
    partial[index] = kernels().term_sum(segment.dtype, segment.term, segment.span(pieces[index]));
  });
  std::vector<double> sums(resolved.size(), 0.0);
  for (size_t index = 0; index < pieces.size(); ++index) sums[pieces[index].row] += partial[index];

  auto [total, values] = means_of(segments, resolved, sums);
  at::Tensor statistics =
      empty_small({with_statistics ? segments.size() : 0, 4}, segments.loss_dtype());
  if (with_statistics) fill_statistics(statistics, resolved, pieces);
  return {total, values, statistics};
}

OnePass multi_tensor_loss_and_gradients(GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  const std::vector<Resolved> resolved = resolve(segments);
  const std::vector<Piece> pieces = cut(resolved);
  std::vector<Outputs> outputs;
  Tensors gradients = allocate(segments, resolved, wanted, outputs);
  std::vector<TermSums> partial(pieces.size());
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const Resolved& segment = resolved[piece.row];
    const Outputs& to = outputs[piece.row];
    partial[index] = kernels().term_sum_and_gradient(
        segment.dtype, segment.term, segment.span(piece),
        scale[piece.row] * segment.inverse_count(), to.a_at(piece.offset), to.b_at(piece.offset));
  });
  std::vector<double> sums(resolved.size(), 0.0), gradient_sums(resolved.size(), 0.0);
  for (size_t index = 0; index < pieces.size(); ++index) {
    sums[pieces[index].row] += partial[index].value;
    gradient_sums[pieces[index].row] += partial[index].gradient;
  }
  fill_scalar_b(outputs, gradient_sums);
  auto [total, values] = means_of(segments, resolved, sums);
  return {total, values, empty_small({0, 4}, segments.loss_dtype()), gradients};
}

bool is_plain(const at::Tensor& tensor) {
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet ordinary({DispatchKey::CPU, DispatchKey::AutogradCPU,
                                          DispatchKey::AutocastCPU, DispatchKey::ADInplaceOrView,
                                          DispatchKey::BackendSelect});
  // By bits: the difference of two key sets would leave the backend in.
  const uint64_t keys =
      tensor.key_set().raw_repr() | c10::impl::tls_local_dispatch_key_set().included_.raw_repr();
  return (keys & ~ordinary.raw_repr()) == 0;
}

bool are_plain(at::TensorList tensors) {
  return std::all_of(tensors.begin(), tensors.end(), is_plain);
}

bool is_one(const at::Tensor& gradient) {
  return gradient.defined() && is_plain(gradient) && scalar_value(gradient) == 1.0;
}

Tensors multi_tensor_loss_backward(const std::optional<at::Tensor>& grad_total,
                                   const std::optional<at::Tensor>& grad_values,
                                   GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  const std::vector<Resolved> resolved = resolve(segments);
  check_wanted("wanted", segments, wanted);
  const std::vector<double> factors = incoming(segments, resolved, grad_total, grad_values);
  const std::vector<Piece> pieces = cut(resolved);
  std::vector<Outputs> outputs;
  Tensors gradients = allocate(segments, resolved, wanted, outputs);
  std::vector<double> partial(pieces.size(), 0.0);
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const Resolved& segment = resolved[piece.row];
    const Outputs& to = outputs[piece.row];
    if (!to.a.defined() && !to.b.defined()) return;
    partial[index] =
        kernels().term_gradient(segment.dtype, segment.term, segment.span(piece),
                                factors[piece.row], to.a_at(piece.offset), to.b_at(piece.offset));
  });
  std::vector<double> sums(resolved.size(), 0.0);
  for (size_t index = 0; index < pieces.size(); ++index) sums[pieces[index].row] += partial[index];
  fill_scalar_b(outputs, sums);
  return gradients;
}

std::tuple<at::Tensor, at::Tensor, Tensors> multi_tensor_loss_double_backward(
    at::TensorList directions, const std::optional<at::Tensor>& grad_total,
    const std::optional<at::Tensor>& grad_values, GANLOSS_SEGMENT_PARAMETERS,
    at::IntArrayRef wanted, at::IntArrayRef wanted_second) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  const std::vector<Resolved> resolved = resolve(segments);
  check_wanted("wanted", segments, wanted);
  check_wanted("wanted_second", segments, wanted_second);
  TORCH_CHECK_VALUE(directions.size() == wanted.size(), "directions: expected ", wanted.size(),
                    " tensors, one for each entry of wanted, got ", directions.size());
  const std::vector<double> factors = incoming(segments, resolved, grad_total, grad_values);
  const std::vector<Piece> pieces = cut(resolved);

  std::vector<Outputs> along(resolved.size());  // directions by segment
  std::vector<double> vb_scalars(resolved.size(), 0.0);
  for_each_wanted(segments, wanted, [&](size_t k, int64_t s, bool is_b) {
    if (is_b && resolved[s].has_scalar_b()) {
      check_shape("directions", directions[k], {}, resolved[s].a);
      vb_scalars[s] = scalar_value(directions[k]);
    } else {
      check_same("directions", directions[k], resolved[s].a);
      (is_b ? along[s].b : along[s].a) = in_layout_of(directions[k], resolved[s].a);
    }
  });

  std::vector<Outputs> outputs;
  Tensors gradients = allocate(segments, resolved, wanted_second, outputs);
  std::vector<Curvature> partial(pieces.size());
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const Resolved& segment = resolved[piece.row];
    const DirectionSpan direction{along[piece.row].a_at(piece.offset),
                                  along[piece.row].b_at(piece.offset), vb_scalars[piece.row]};
    partial[index] = kernels().term_curvature(
        segment.dtype, segment.term, segment.span(piece), direction, factors[piece.row],
        outputs[piece.row].a_at(piece.offset), outputs[piece.row].b_at(piece.offset));
  });
  std::vector<double> sums(resolved.size(), 0.0);
  std::vector<double> contractions(resolved.size(), 0.0);
  for (size_t index = 0; index < pieces.size(); ++index) {
    sums[pieces[index].row] += partial[index].sum;
    contractions[pieces[index].row] += partial[index].contraction;
  }
  fill_scalar_b(outputs, sums);

  auto [grad_grad_total, grad_grad_values] = means_of(segments, resolved, contractions);
  return {grad_grad_total, grad_grad_values, gradients};
}

TORCH_LIBRARY_IMPL(ganloss_fast, CPU, m) {
  m.impl("multi_tensor_loss", &cpu::multi_tensor_loss);
  m.impl("multi_tensor_loss_backward", &cpu::multi_tensor_loss_backward);
  m.impl("multi_tensor_loss_double_backward", &cpu::multi_tensor_loss_double_backward);
}

}  // namespace ganloss::cpu
