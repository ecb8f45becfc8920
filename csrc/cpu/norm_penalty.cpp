// norm_penalty on the CPU: a batch is bands of rows.
#include "../host/samples.h"
#include "../math/penalty.h"
#include "../ops.h"
#include "launch.h"

namespace ganloss::cpu {

namespace {

// <x_i, y_i> for every sample, in double.
std::vector<double> row_dots(const at::Tensor& x, const at::Tensor& y) {
  const int64_t length = row_length(x, x.size(0));
  const std::vector<Band> bands = cut_batch(x.size(0), length);
  std::vector<size_t> place;  // of the first sum of each band
  size_t count = 0;
  for (const Band& band : bands) {
    place.push_back(count);
    count += band.rows.count;
  }
  std::vector<double> partial(count);
  for_each_piece(bands, [&](int64_t index) {
    const Band& band = bands[index];
    kernels().dots(dtype_of(x), at_offset(x, band.first), at_offset(y, band.first),
                   &partial[place[index]], band.rows);
  });
  std::vector<double> dots(x.size(0), 0.0);
  for (size_t index = 0; index < bands.size(); ++index)
    for (int64_t k = 0; k < bands[index].rows.count; ++k)
      dots[bands[index].row + k] += partial[place[index] + k];
  return dots;
}

// out_i = x_scale[i] x_i + y_scale[i] y_i for every sample; y may be undefined.
at::Tensor combine_rows(const at::Tensor& x, const std::vector<double>& x_scale,
                        const at::Tensor& y, const std::vector<double>& y_scale) {
  at::Tensor out = empty_output(x);
  const int64_t length = row_length(x, x.size(0));
  const std::vector<Band> bands = cut_batch(x.size(0), length);
  for_each_piece(bands, [&](int64_t index) {
    const Band& band = bands[index];
    kernels().combine(dtype_of(x), at_offset(x, band.first), &x_scale[band.row],
                      y.defined() ? at_offset(y, band.first) : nullptr,
                      y.defined() ? &y_scale[band.row] : nullptr,
                      at_offset_mutable(out, band.first), band.rows);
  });
  return out;
}

math::NormPenalty<double> penalty_of(int64_t mode, double target) {
  return {static_cast<math::PenaltyMode>(mode), target};
}

}  // namespace

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

at::Tensor norm_penalty_backward(const at::Tensor& grad_penalty, const at::Tensor& gradient,
                                 const at::Tensor& norms, int64_t mode, double target,
                                 double scale) {
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

}  // namespace ganloss::cpu
