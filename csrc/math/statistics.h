// What deviations are counted from, for a standard deviation in one pass.
//
// squares / n - mean^2 loses the digits by which the mean exceeds the deviation, so both are taken
// relative to a center near the mean. One element would do, were it not the outlier: the middle of
// three is near the mean whatever one of them is.
#pragma once

#include <stdint.h>

#include "functions.h"

namespace ganloss::math {

// Which elements of `count` the center is made from: not the corners, which may be padding.
inline constexpr int kCenterElements = 3;
HOST_DEVICE int64_t center_element(int k, int64_t count) {
  return (2 * k + 1) * (count / 6);
}

template <typename scalar_t>
HOST_DEVICE scalar_t middle_of(scalar_t x, scalar_t y, scalar_t z) {
  const scalar_t low = x < y ? x : y, high = x < y ? y : x;
  return z < low ? low : z > high ? high : z;
}

// The center from those three elements: finite, for what is not counts as 0.
template <typename scalar_t>
HOST_DEVICE scalar_t center_of(const scalar_t x[kCenterElements]) {
  scalar_t finite[kCenterElements];
  for (int k = 0; k < kCenterElements; ++k)
    finite[k] = x[k] - x[k] == scalar_t(0) ? x[k] : scalar_t(0);
  return middle_of(finite[0], finite[1], finite[2]);
}

}  // namespace ganloss::math
