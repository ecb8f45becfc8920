// multi_tensor_loss on the CPU: segments to pieces, kernels over pieces, sums in piece order.
#include <cmath>

#include "../math/statistics.h"
#include "gradients_ahead.h"
#include "segments.h"

namespace ganloss::cpu {

namespace {

at::Tensor output_like(const at::Tensor& like) {
  return empty_output(like);
}

// The gradient of a 0-d b is minus the sum of the gradients of a.
void fill_scalar_b(const std::vector<Gradients>& outputs, const std::vector<double>& sums) {
  for (size_t s = 0; s < outputs.size(); ++s)
    if (outputs[s].has_scalar_b()) outputs[s].b.fill_(-sums[s]);
}

void write_scalar(const at::Tensor& tensor, int64_t index, double value) {
  if (tensor.scalar_type() == at::kDouble)
    tensor.mutable_data_ptr<double>()[index] = value;
  else
    tensor.mutable_data_ptr<float>()[index] = static_cast<float>(value);
}

// d total / d sum_s of each segment: its incoming gradient over its number of elements.
std::vector<double> factors_of(const Segments& segments, const std::vector<Resolved>& resolved,
                               const std::optional<at::Tensor>& grad_total,
                               const std::optional<at::Tensor>& grad_values) {
  check_incoming(segments, grad_total, grad_values);
  const Incoming incoming(grad_total.value_or(at::Tensor()), grad_values.value_or(at::Tensor()));
  std::vector<double> factors;
  for (size_t s = 0; s < resolved.size(); ++s)
    factors.push_back(incoming.of_mean(s, segments.scale[s]) * resolved[s].inverse_count());
  return factors;
}

// Means of segments as values [S], and the scaled total [] of them.
std::tuple<at::Tensor, at::Tensor> outputs_of(const Segments& segments,
                                              const std::vector<double>& means) {
  const at::ScalarType dtype = segments.loss_dtype();
  at::Tensor values = empty_small({segments.size()}, dtype);
  at::Tensor total = empty_small({}, dtype);
  double sum = 0.0;
  for (int64_t s = 0; s < segments.size(); ++s) {
    write_scalar(values, s, means[s]);
    sum += segments.scale[s] * means[s];
  }
  write_scalar(total, 0, sum);
  return {total, values};
}

// A mean whose sum left the range of its dtype is taken again in double: the mean of finite values
// is finite, and so is that of squares whose largest alone is not.
void mend_means(const std::vector<Resolved>& resolved, const std::vector<Piece>& pieces,
                std::vector<double>& means) {
  for (size_t s = 0; s < means.size(); ++s) {
    if (std::isfinite(means[s]) || resolved[s].a.numel() == 0) continue;
    means[s] = 0.0;
    for (const Piece& piece : pieces)
      if (piece.row == static_cast<int64_t>(s))
        means[s] += kernels().wide_term_sum(resolved[s].dtype, resolved[s].term,
                                            resolved[s].span(piece), resolved[s].inverse_count());
  }
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

// What the statistics of a segment are counted from.
double center_of(const at::Tensor& a) {
  if (a.numel() == 0) return 0.0;
  double elements[math::kCenterElements];
  for (int k = 0; k < math::kCenterElements; ++k)
    elements[k] = element(a, math::center_element(k, a.numel()));
  return math::center_of(elements);
}

// Statistics of the segments, piece by piece: the pass that reads the logits takes them along.
class StatisticsPass {
 public:
  StatisticsPass(const std::vector<Resolved>& resolved, const std::vector<Piece>& pieces)
      : resolved_(resolved), pieces_(pieces), partial_(pieces.size()) {
    for (const Resolved& segment : resolved) centers_.push_back(center_of(segment.a));
  }
  void visit(int64_t index) {
    const Piece& piece = pieces_[index];
    const Resolved& segment = resolved_[piece.row];
    partial_[index] = kernels().statistics(segment.dtype, at_offset(segment.a, piece.offset),
                                           centers_[piece.row], piece.count);
  }
  void write(const at::Tensor& statistics) const {
    std::vector<Statistics> sums(resolved_.size(), Statistics{0.0, 0.0, 0.0, 0.0});
    for (size_t index = 0; index < pieces_.size(); ++index) {
      Statistics& sum = sums[pieces_[index].row];
      sum.sum += partial_[index].sum;
      sum.sum_of_squares += partial_[index].sum_of_squares;
      sum.sum_of_signs += partial_[index].sum_of_signs;
      sum.nonfinite += partial_[index].nonfinite;
    }
    for (size_t s = 0; s < sums.size(); ++s) {
      void* row = at_offset_mutable(statistics, 4 * static_cast<int64_t>(s));
      const double inverse_count = resolved_[s].inverse_count();
      if (statistics.scalar_type() == at::kDouble)
        write_statistics(static_cast<double*>(row), sums[s], centers_[s], inverse_count);
      else
        write_statistics(static_cast<float*>(row), sums[s], centers_[s], inverse_count);
    }
  }

 private:
  const std::vector<Resolved>& resolved_;
  const std::vector<Piece>& pieces_;
  std::vector<double> centers_;      // [S]
  std::vector<Statistics> partial_;  // for each piece
};

}  // namespace

LossOutputs multi_tensor_loss_ahead(GANLOSS_SEGMENT_PARAMETERS, bool with_statistics,
                                    GradientsAhead* ahead, at::IntArrayRef wanted) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  const std::vector<Resolved> resolved = resolve(segments);
  const std::vector<Piece> pieces = cut(resolved);
  if (ahead) ahead->prepare(segments, resolved, wanted);
  std::optional<StatisticsPass> seen;
  if (with_statistics) seen.emplace(resolved, pieces);

  std::vector<TermSums> partial(pieces.size());
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const Resolved& segment = resolved[piece.row];
    if (seen) seen->visit(index);  // first: the kernel of the term finds the piece in the cache
    if (ahead)
      partial[index] = ahead->visit(segment, piece);
    else
      partial[index] = {kernels().term_sum(segment.dtype, segment.term, segment.span(piece)), 0.0};
  });

  std::vector<double> means(resolved.size(), 0.0), gradient_sums(resolved.size(), 0.0);
  for (size_t index = 0; index < pieces.size(); ++index) {
    means[pieces[index].row] += partial[index].value;
    gradient_sums[pieces[index].row] += partial[index].gradient;
  }
  for (size_t s = 0; s < means.size(); ++s) means[s] *= resolved[s].inverse_count();
  mend_means(resolved, pieces, means);
  if (ahead) ahead->finish(gradient_sums);
  auto [total, values] = outputs_of(segments, means);
  at::Tensor statistics =
      empty_small({with_statistics ? segments.size() : 0, 4}, segments.loss_dtype());
  if (seen) seen->write(statistics);
  return {total, values, statistics};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> multi_tensor_loss(GANLOSS_SEGMENT_PARAMETERS,
                                                                 bool with_statistics) {
  return multi_tensor_loss_ahead(GANLOSS_SEGMENT_ARGUMENTS, with_statistics, nullptr, {});
}

Tensors multi_tensor_loss_backward(const std::optional<at::Tensor>& grad_total,
                                   const std::optional<at::Tensor>& grad_values,
                                   GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  const std::vector<Resolved> resolved = resolve(segments);
  check_wanted("wanted", segments, wanted);
  const std::vector<double> factors = factors_of(segments, resolved, grad_total, grad_values);
  const std::vector<Piece> pieces = cut(resolved);
  std::vector<Gradients> outputs;
  Tensors gradients = allocate(segments, resolved, wanted, output_like, outputs);
  std::vector<double> partial(pieces.size(), 0.0);
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const Resolved& segment = resolved[piece.row];
    const Gradients& to = outputs[piece.row];
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
  check_wanted("wanted_second", segments, wanted_second);
  const std::vector<double> factors = factors_of(segments, resolved, grad_total, grad_values);
  const std::vector<Piece> pieces = cut(resolved);

  const std::vector<Gradients> along = resolve_directions(segments, resolved, directions, wanted);
  std::vector<double> vb_scalars(resolved.size(), 0.0);
  for (size_t s = 0; s < along.size(); ++s)
    if (along[s].has_scalar_b()) vb_scalars[s] = scalar_value(along[s].b);

  std::vector<Gradients> outputs;
  Tensors gradients = allocate(segments, resolved, wanted_second, output_like, outputs);
  std::vector<Curvature> partial(pieces.size());
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const Resolved& segment = resolved[piece.row];
    const DirectionSpan direction{along[piece.row].a_at(piece.offset),
                                  along[piece.row].b_at(piece.offset), vb_scalars[piece.row]};
    partial[index] = kernels().term_curvature(
        segment.dtype, segment.term, segment.span(piece), direction, factors[piece.row],
        segment.inverse_count(), outputs[piece.row].a_at(piece.offset),
        outputs[piece.row].b_at(piece.offset));
  });
  std::vector<double> sums(resolved.size(), 0.0);
  std::vector<double> contractions(resolved.size(), 0.0);  // means
  for (size_t index = 0; index < pieces.size(); ++index) {
    sums[pieces[index].row] += partial[index].sum;
    contractions[pieces[index].row] += partial[index].contraction;
  }
  for (size_t s = 0; s < resolved.size(); ++s)
    if (resolved[s].a.numel() == 0) contractions[s] = NAN;  // a mean over nothing
  fill_scalar_b(outputs, sums);

  auto [grad_grad_total, grad_grad_values] = outputs_of(segments, contractions);
  return {grad_grad_total, grad_grad_values, gradients};
}

}  // namespace ganloss::cpu
