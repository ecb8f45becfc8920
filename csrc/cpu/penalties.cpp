// interpolate and norm_penalty on the CPU: a batch is rows, a row is pieces.
#include <torch/library.h>

#include "../checks.h"
#include "../math/penalty.h"
#include "../ops.h"
#include "launch.h"

namespace ganloss::cpu {

namespace {

int64_t sample_size(const at::Tensor& batch) {
  return batch.size(0) == 0 ? 0 : batch.numel() / batch.size(0);
}

int64_t first_element(const Piece& piece, int64_t length) {
  return piece.row * length + piece.offset;
}

// <x_i, y_i> for every sample, in double.
std::vector<double> row_dots(const at::Tensor& x, const at::Tensor& y) {
  const int64_t length = sample_size(x);
  const std::vector<Piece> pieces = cut_batch(x.size(0), length);
  std::vector<double> partial(pieces.size());
  for_each_piece(pieces, [&](int64_t index) {
    const int64_t first = first_element(pieces[index], length);
    partial[index] =
        kernels().dot(dtype_of(x), at_offset(x, first), at_offset(y, first), pieces[index].count);
  });
  std::vector<double> dots(x.size(0), 0.0);
  for (size_t index = 0; index < pieces.size(); ++index) dots[pieces[index].row] += partial[index];
  return dots;
}

// out_i = x_scale[i] x_i + y_scale[i] y_i for every sample; y may be undefined.
at::Tensor combine_rows(const at::Tensor& x, const std::vector<double>& x_scale,
                        const at::Tensor& y, const std::vector<double>& y_scale) {
  at::Tensor out = empty_output(x);
  const int64_t length = sample_size(x);
  const std::vector<Piece> pieces = cut_batch(x.size(0), length);
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const int64_t first = first_element(piece, length);
    kernels().combine(dtype_of(x), at_offset(x, first), x_scale[piece.row],
                      y.defined() ? at_offset(y, first) : nullptr,
                      y.defined() ? y_scale[piece.row] : 0.0, at_offset_mutable(out, first),
                      piece.count);
  });
  return out;
}

std::vector<double> to_doubles(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kDouble).contiguous();
  const double* begin = values.const_data_ptr<double>();
  return {begin, begin + values.numel()};
}

math::NormPenalty<double> penalty_of(int64_t mode, double target) {
  return {static_cast<math::PenaltyMode>(mode), target};
}

}  // namespace

at::Tensor interpolate(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha) {
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
  const at::Tensor f = in_layout_of(fake, r);
  const at::Tensor element_alpha =
      per_element ? in_layout_of(alpha.to(compute_dtype(real)), r) : at::Tensor();
  const std::vector<double> row_alpha = per_element ? std::vector<double>() : to_doubles(alpha);
  at::Tensor out = empty_output(r);
  const int64_t rows = per_sample ? r.size(0) : 1;
  const int64_t length = rows == 0 ? 0 : r.numel() / rows;
  const std::vector<Piece> pieces = cut_batch(rows, length);
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const int64_t first = first_element(piece, length);
    kernels().interpolate(dtype_of(r), at_offset(r, first), at_offset(f, first),
                          per_element ? at_offset(element_alpha, first) : nullptr,
                          per_element ? 0.0 : row_alpha[piece.row], at_offset_mutable(out, first),
                          piece.count);
  });
  return restore_layout(out, r, real);
}

std::tuple<at::Tensor, at::Tensor> norm_penalty(const at::Tensor& gradient, int64_t mode,
                                                         double target, double scale) {
  check_penalty(gradient, mode);
  const at::Tensor g = dense_by_sample(gradient);
  const std::vector<double> squared_norms = row_dots(g, g);
  const math::NormPenalty<double> penalty = penalty_of(mode, target);
  at::Tensor norms = empty_small({g.size(0)}, at::kDouble);
  double sum = 0.0;
  for (size_t i = 0; i < squared_norms.size(); ++i) {
    const double norm = std::sqrt(squared_norms[i]);
    sum += penalty.value(norm);
    norms.mutable_data_ptr<double>()[i] = norm;
  }
  const double mean = sum / static_cast<double>(g.size(0));
  at::Tensor result = empty_small({}, compute_dtype(g));
  result.fill_(scale * mean);
  return {result, norms.to(compute_dtype(g))};
}

at::Tensor norm_penalty_backward(const at::Tensor& grad_penalty,
                                          const at::Tensor& gradient, const at::Tensor& norms,
                                          int64_t mode, double target, double scale) {
  check_penalty_backward(grad_penalty, gradient, norms, mode);
  const at::Tensor g = dense_by_sample(gradient);
  const math::NormPenalty<double> penalty = penalty_of(mode, target);
  const double incoming = scalar_value(grad_penalty) * scale / static_cast<double>(g.size(0));
  std::vector<double> factors = to_doubles(norms);
  for (double& factor : factors) factor = incoming * penalty.coefficient(factor);
  return restore_layout(combine_rows(g, factors, at::Tensor(), {}), g, gradient);
}

std::tuple<at::Tensor, at::Tensor> norm_penalty_double_backward(
    const at::Tensor& direction, const at::Tensor& grad_penalty, const at::Tensor& gradient,
    const at::Tensor& norms, int64_t mode, double target, double scale) {
  check_penalty_backward(grad_penalty, gradient, norms, mode);
  check_same("direction", direction, gradient);
  const at::Tensor g = dense_by_sample(gradient);
  const at::Tensor v = in_layout_of(direction, g);
  const math::NormPenalty<double> penalty = penalty_of(mode, target);
  const double per_sample = scale / static_cast<double>(g.size(0));
  const double incoming = scalar_value(grad_penalty) * per_sample;
  const std::vector<double> n = to_doubles(norms);
  const std::vector<double> dots = row_dots(g, v);
  std::vector<double> along_v(n.size()), along_g(n.size());
  double contraction = 0.0;
  for (size_t i = 0; i < n.size(); ++i) {
    const double coefficient = penalty.coefficient(n[i]);
    const double inverse = penalty.inverse(n[i]);
    contraction += per_sample * coefficient * dots[i];
    along_v[i] = incoming * coefficient;
    along_g[i] = incoming * penalty.twist(n[i]) * (dots[i] * inverse) * inverse;
  }
  at::Tensor grad_grad = empty_small({}, grad_penalty.scalar_type());
  grad_grad.fill_(contraction);
  return {grad_grad, restore_layout(combine_rows(v, along_v, g, along_g), g, gradient)};
}

TORCH_LIBRARY_IMPL(ganloss_fast, CPU, m) {
  m.impl("interpolate", &cpu::interpolate);
  m.impl("norm_penalty", &cpu::norm_penalty);
  m.impl("norm_penalty_backward", &cpu::norm_penalty_backward);
  m.impl("norm_penalty_double_backward", &cpu::norm_penalty_double_backward);
}

}  // namespace ganloss::cpu
