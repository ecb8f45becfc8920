// Penalties on a gradient norm n = ||g||.
//
// With p(n) the penalty of one sample and u = g / n its direction, every derivative a kernel needs
// is made of
//   coefficient(n) = p'(n) / n                   grad of p with respect to g:  coefficient * g
//   twist(n)       = p''(n) - coefficient(n)     second derivative, applied to v:
//                                                coefficient * v + twist * <u, v> * u
//   inverse(n)     = 1 / n                       u = inverse * g
// One factor at a time: n^3 is 0 in float32 where n is 1e-15, and the second derivative is finite.
// At n = 0 all three are 0 (the subgradient that torch.norm takes), so a dead sample never turns
// the step into NaN.
#pragma once

#include "functions.h"

namespace ganloss::math {

enum class PenaltyMode : int {
  kTwoSided = 0,  // (n - target)^2, Gulrajani et al. 2017
  kOneSided = 1,  // max(0, n - target)^2, Petzka et al. 2018
};
inline constexpr const char* kPenaltyModeNames[] = {"two_sided", "one_sided"};
inline constexpr int kPenaltyModeCount = sizeof(kPenaltyModeNames) / sizeof(kPenaltyModeNames[0]);

template <typename scalar_t>
struct NormPenalty {
  PenaltyMode mode;
  scalar_t target;

  HOST_DEVICE bool is_active(scalar_t norm) const {
    return mode == PenaltyMode::kTwoSided || !(norm <= target);
  }
  HOST_DEVICE scalar_t value(scalar_t norm) const {
    return is_active(norm) ? (norm - target) * (norm - target) : scalar_t(0);
  }
  HOST_DEVICE scalar_t coefficient(scalar_t norm) const {
    if (norm == scalar_t(0) || !is_active(norm)) return scalar_t(0);
    return scalar_t(2) - scalar_t(2) * target / norm;
  }
  HOST_DEVICE scalar_t twist(scalar_t norm) const {
    if (norm == scalar_t(0) || !is_active(norm)) return scalar_t(0);
    return scalar_t(2) * target / norm;
  }
  HOST_DEVICE static scalar_t inverse(scalar_t norm) {
    return norm == scalar_t(0) ? scalar_t(0) : scalar_t(1) / norm;
  }
};

}  // namespace ganloss::math
