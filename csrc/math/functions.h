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

// log(1 + x) for x in [0, 1], of a float or a vector of them: x times a minimax polynomial of
// degree 9 (0.09 ulp). It needs neither the range reduction nor the special cases of a general
// log1p.
template <typename scalar_t>
HOST_DEVICE scalar_t log1p_polynomial(scalar_t x) {
  scalar_t p = scalar_t(-0.0032910798f);
  p = p * x + scalar_t(0.02008847f);
  p = p * x + scalar_t(-0.057460487f);
  p = p * x + scalar_t(0.10661371f);
  p = p * x + scalar_t(-0.15344977f);
  p = p * x + scalar_t(0.19692121f);
  p = p * x + scalar_t(-0.2495802f);
  p = p * x + scalar_t(0.33330464f);
  p = p * x + scalar_t(-0.4999993f);
  p = p * x + scalar_t(1.0f);
  return x * p;
}
HOST_DEVICE float log1p_unit(float x) {
  return log1p_polynomial(x);
}
HOST_DEVICE double log1p_unit(double x) {
  return log1p(x);
}

// x / y for x in [0, 1] and y in [1, 4], where neither overflows nor underflows on the way: the
// rounded quotient by one Newton step, without the special cases of a general division.
HOST_DEVICE float divide_unit(float x, float y) {
  const float reciprocal = approximate_reciprocal(y);
  const float quotient = x * reciprocal;
  return fmaf(fmaf(-quotient, y, x), reciprocal, quotient);
}
HOST_DEVICE double divide_unit(double x, double y) {
  return x / y;
}

}  // namespace ganloss::math
