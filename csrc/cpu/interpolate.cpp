// interpolate on the CPU: a batch is bands of rows.
#include "../host/samples.h"
#include "../ops.h"
#include "launch.h"

namespace ganloss::cpu {

at::Tensor interpolate(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha) {
  const InterpolateOperands operands = interpolate_operands(real, fake, alpha);
  const at::Tensor &r = operands.real, &f = operands.fake, &weight = operands.alpha;
  const bool per_element = operands.alpha_per_element;
  const std::vector<double> of_row = per_element ? std::vector<double>() : to_doubles(weight);
  at::Tensor out = empty_output(r);
  const int64_t length = row_length(r, operands.rows);
  const std::vector<Band> bands = cut_batch(operands.rows, length);
  for_each_piece(bands, [&](int64_t index) {
    const Band& band = bands[index];
    kernels().interpolate(dtype_of(r), at_offset(r, band.first), at_offset(f, band.first),
                          per_element ? at_offset(weight, band.first) : nullptr,
                          per_element ? nullptr : &of_row[band.row],
                          at_offset_mutable(out, band.first), band.rows);
  });
  return restore_layout(out, r, real);
}

}  // namespace ganloss::cpu
