// interpolate on the CPU: a batch is rows, a row is pieces.
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
  const std::vector<Piece> pieces = cut_batch(operands.rows, length);
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const int64_t first = piece.first_element(length);
    kernels().interpolate(dtype_of(r), at_offset(r, first), at_offset(f, first),
                          per_element ? at_offset(weight, first) : nullptr,
                          per_element ? 0.0 : of_row[piece.row], at_offset_mutable(out, first),
                          piece.count);
  });
  return restore_layout(out, r, real);
}

}  // namespace ganloss::cpu
