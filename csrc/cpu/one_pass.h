// Value and gradient of a multi-tensor loss in one pass over its operands.
//
// A backward that starts at the loss itself brings the gradient 1, and then the gradient could
// have been written while the loss was read. Whether it is 1 can only be known by reading it,
// which on a GPU would stop the host: so this is for the CPU, in plain eager mode.
#pragma once

#include <tuple>

#include "../ops.h"

namespace ganloss::cpu {

struct OnePass {
  at::Tensor total;       // []
  at::Tensor values;      // [S]
  at::Tensor statistics;  // [0, 4]: not computed
  Tensors gradients;      // of total, for the `wanted` of  a ++ b
};

OnePass multi_tensor_loss_and_gradients(GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted);

// Whether a tensor is an ordinary CPU tensor outside of any tracer, mode or transform, so that
// its data may be read and kernels called without the dispatcher.
bool is_plain(const at::Tensor& tensor);
bool are_plain(at::TensorList tensors);

// Whether an incoming gradient is exactly 1; false where it cannot be read.
bool is_one(const at::Tensor& gradient);

}  // namespace ganloss::cpu
