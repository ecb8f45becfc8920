// Points between two values.
#pragma once

#include "functions.h"

namespace ganloss::math {

// from + weight (towards - from), taken from the nearer end as torch.lerp does, so that weights
// 0 and 1 give both ends exactly.
template <typename scalar_t>
HOST_DEVICE scalar_t interpolate(scalar_t from, scalar_t towards, scalar_t weight) {
  scalar_t step = towards - from;
  return select(weight < scalar_t(0.5), from + weight * step,
                towards - (scalar_t(1) - weight) * step);
}

}  // namespace ganloss::math
