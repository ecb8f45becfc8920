// Penalties on a gradient norm n = ||g||, as functions of the squared norm q = n^2.
//
// With p(n) the penalty of one sample, every derivative a kernel needs is one of
//   coefficient(q) = p'(n) / n           grad of p with respect to g:  coefficient * g
//   twist(q)       = coefficient'(n) / n the rank-one part of the second derivative:
//                                        coefficient * v + twist * <g, v> * g
// At n = 0 both are 0 for the two norms with a target (the subgradient that torch.norm takes),
// so a dead sample never turns the step into NaN.
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
  HOST_DEVICE scalar_t value(scalar_t squared_norm) const {
    scalar_t norm = square_root(squared_norm);
    return is_active(norm) ? (norm - target) * (norm - target) : scalar_t(0);
  }
  HOST_DEVICE scalar_t coefficient(scalar_t squared_norm) const {
    scalar_t norm = square_root(squared_norm);
    if (norm == scalar_t(0) || !is_active(norm)) return scalar_t(0);
    return scalar_t(2) - scalar_t(2) * target / norm;
  }
  HOST_DEVICE scalar_t twist(scalar_t squared_norm) const {
    scalar_t norm = square_root(squared_norm);
    if (norm == scalar_t(0) || !is_active(norm)) return scalar_t(0);
    return scalar_t(2) * target / (norm * squared_norm);
  }
};

}  // namespace ganloss::math
