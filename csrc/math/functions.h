// The scalar functions that terms and penalties are written in, for one float or one double.
//
// cpu/kernels/vector.h gives those that terms take for a SIMD vector, under the same names, so that
// a term is one text for all.
#pragma once

#include <math.h>

#include "platform.h"

namespace ganloss::math {

HOST_DEVICE float select(bool condition, float yes, float no) {
  return condition ? yes : no;
}
HOST_DEVICE double select(bool condition, double yes, double no) {
  return condition ? yes : no;
}

HOST_DEVICE float absolute(float x) {
  return fabsf(x);
}
HOST_DEVICE double absolute(double x) {
  return fabs(x);
}

// max(0, x) that keeps a NaN, as torch.relu does.
HOST_DEVICE float positive_part(float x) {
  return x <= 0.0f ? 0.0f : x;
}
HOST_DEVICE double positive_part(double x) {
  return x <= 0.0 ? 0.0 : x;
}

HOST_DEVICE float square_root(float x) {
  return sqrtf(x);
}
HOST_DEVICE double square_root(double x) {
  return sqrt(x);
}

// exp(-|x|), in (0, 1]: the only exponential that is needed, and it cannot overflow.
HOST_DEVICE float exp_minus_absolute(float x) {
  return expf(-fabsf(x));
}
HOST_DEVICE double exp_minus_absolute(double x) {
  return exp(-fabs(x));
}

// log(1 + x) for x in [0, 1].
HOST_DEVICE float log1p_unit(float x) {
  return log1pf(x);
}
HOST_DEVICE double log1p_unit(double x) {
  return log1p(x);
}

}  // namespace ganloss::math
