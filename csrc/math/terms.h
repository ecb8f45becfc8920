// Terms: the elementwise functions that every GAN loss is a weighted mean of.
//
// Each term gives its value and its first two derivatives in z. They are the only statement
// of these formulas in C++: the CPU and the CUDA kernels are templates over them. scalar_t is
// float (for half, bfloat16 and float input), double (for double), or a SIMD vector of either.
//
// The slope comes multiplied by a factor, for a slope may overflow where the gradient does not:
// 2 (z - c) for |z| above half the largest number, where 2 (z - c) / n is far from it.
//
// The step of a term is the one size that its slope has where it is not 0: such a slope is known
// by its sign. It is 0 where the size varies. A constant slope is the same for every z.
#pragma once

#include "functions.h"

namespace ganloss::math {

// 1 / (1 + exp(-x)); both branches divide a number in [0, 1] by one in [1, 2].
template <typename scalar_t>
HOST_DEVICE scalar_t sigmoid(scalar_t x) {
  scalar_t z = exp_minus_absolute(x);
  return divide_unit(select(x <= scalar_t(0), z, scalar_t(1)), scalar_t(1) + z);
}

// sigmoid(x) * sigmoid(-x), even in x. NaN at NaN, 0 at both infinities.
template <typename scalar_t>
HOST_DEVICE scalar_t sigmoid_slope(scalar_t x) {
  scalar_t z = exp_minus_absolute(x);
  scalar_t denominator = scalar_t(1) + z;
  return divide_unit(z, denominator * denominator);
}

// Softplus with sign s:  log(1 + exp(s z)).
//
// Binary cross-entropy on a logit is softplus(-z) for target 1 and softplus(z) for target 0.
// Written this way it keeps its tail: z - log(sigmoid(z)) cancels to 0 at z = -15 in float32,
// and (1 - t) * softplus(z) is 0 * inf = NaN at z = +inf.
template <typename scalar_t>
struct Softplus {
  static constexpr bool kHasConstantSlope = false;
  scalar_t sign;

  // Without overflow, and keeping the tail: at s z = -100 it is 3.8e-44, not 0.
  HOST_DEVICE scalar_t value(scalar_t z) const { return growing(z) + log1p_unit(decaying(z)); }
  HOST_DEVICE scalar_t growing(scalar_t z) const { return positive_part(sign * z); }
  HOST_DEVICE scalar_t decaying(scalar_t z) const { return exp_minus_absolute(sign * z); }
  HOST_DEVICE scalar_t slope(scalar_t z, scalar_t factor) const {
    return (factor * sign) * sigmoid(sign * z);
  }
  HOST_DEVICE scalar_t curvature(scalar_t z) const { return sigmoid_slope(z); }
  HOST_DEVICE scalar_t step() const { return scalar_t(0); }
};

// Hinge with sign s and margin m:  max(0, m - s z).  The slope follows torch.relu: 0 at the
// kink, passed through at NaN.
template <typename scalar_t>
struct Hinge {
  static constexpr bool kHasConstantSlope = false;
  scalar_t sign;
  scalar_t margin;

  HOST_DEVICE scalar_t value(scalar_t z) const { return positive_part(margin - sign * z); }
  HOST_DEVICE scalar_t slope(scalar_t z, scalar_t factor) const {
    return factor * select(margin - sign * z <= scalar_t(0), scalar_t(0), -sign);
  }
  HOST_DEVICE scalar_t curvature(scalar_t) const { return scalar_t(0); }
  HOST_DEVICE scalar_t step() const { return absolute(sign); }
};

// Squared distance to c:  (z - c)^2.
template <typename scalar_t>
struct Squared {
  static constexpr bool kHasConstantSlope = false;
  scalar_t center;

  HOST_DEVICE scalar_t value(scalar_t z) const { return (z - center) * (z - center); }
  HOST_DEVICE scalar_t slope(scalar_t z, scalar_t factor) const {
    return scalar_t(2) * (factor * (z - center));
  }
  HOST_DEVICE scalar_t curvature(scalar_t) const { return scalar_t(2); }
  HOST_DEVICE scalar_t step() const { return scalar_t(0); }
};

// z itself: Wasserstein losses, the hinge generator loss, means of logits.
template <typename scalar_t>
struct Linear {
  static constexpr bool kHasConstantSlope = true;
  HOST_DEVICE scalar_t value(scalar_t z) const { return z; }
  HOST_DEVICE scalar_t slope(scalar_t, scalar_t factor) const { return factor; }
  HOST_DEVICE scalar_t curvature(scalar_t) const { return scalar_t(0); }
  HOST_DEVICE scalar_t step() const { return scalar_t(1); }
};

// |z|, slope 0 at 0 as torch.sign; NaN at NaN, where torch.sign gives 0 and hides it.
template <typename scalar_t>
struct Absolute {
  static constexpr bool kHasConstantSlope = false;
  HOST_DEVICE scalar_t value(scalar_t z) const { return absolute(z); }
  HOST_DEVICE scalar_t slope(scalar_t z, scalar_t factor) const {
    return factor * select(z < scalar_t(0), scalar_t(-1), select(z > scalar_t(0), scalar_t(1), z));
  }
  HOST_DEVICE scalar_t curvature(scalar_t) const { return scalar_t(0); }
  HOST_DEVICE scalar_t step() const { return scalar_t(1); }
};

// A factor in two: what a slope is multiplied by before its weight, and what comes after. A factor
// above 1 comes after, for the weight may be small, and leaves 1/2, for a slope may be 2 z: so the
// product overflows only where the gradient does.
template <typename scalar_t>
struct Factor {
  scalar_t before, after;

  HOST_DEVICE Factor(scalar_t factor, bool is_weighted) : before(factor), after(1) {
    if (is_weighted && absolute(factor) > scalar_t(1)) {
      before = scalar_t(0.5);
      after = scalar_t(2) * factor;
    }
  }
};

// A term chosen at run time: its code and its parameters in the order of its fields.
struct TermSpec {
  int code;
  double first;
  double second;
};

// The table of terms: DO(name, the term made from its parameters). A code is a row number;
// ganloss_fast/ops/terms.py holds the same list and a test compares the two.
#define GANLOSS_FOR_EACH_TERM(DO)           \
  DO(softplus, Softplus<scalar_t>{first})   \
  DO(hinge, Hinge<scalar_t>{first, second}) \
  DO(squared, Squared<scalar_t>{first})     \
  DO(linear, Linear<scalar_t>{})            \
  DO(abs, Absolute<scalar_t>{})

#define GANLOSS_TERM_CODE(name, ...) name,
#define GANLOSS_TERM_NAME(name, ...) #name,
#define GANLOSS_TERM_CASE(name, ...) \
  case TermCode::name:               \
    return visitor(__VA_ARGS__);

enum class TermCode : int { GANLOSS_FOR_EACH_TERM(GANLOSS_TERM_CODE) };
inline constexpr const char* kTermNames[] = {GANLOSS_FOR_EACH_TERM(GANLOSS_TERM_NAME)};
inline constexpr int kTermCount = sizeof(kTermNames) / sizeof(kTermNames[0]);

// Calls visitor(term) with the term that the code names; codes are checked at the door.
#if defined(__CUDACC__)
#pragma nv_exec_check_disable  // the host visits with functions of the host
#endif
template <typename scalar_t, typename Visitor>
HOST_DEVICE auto visit_term(const TermSpec& spec, Visitor&& visitor) {
  const scalar_t first = scalar_t(spec.first), second = scalar_t(spec.second);
  switch (static_cast<TermCode>(spec.code)) { GANLOSS_FOR_EACH_TERM(GANLOSS_TERM_CASE) }
  __builtin_unreachable();
}

inline double step_of(const TermSpec& spec) {
  return visit_term<double>(spec, [](auto term) { return term.step(); });
}

inline bool has_constant_slope(const TermSpec& spec) {
  return visit_term<double>(spec, [](auto term) { return decltype(term)::kHasConstantSlope; });
}

#undef GANLOSS_TERM_CODE
#undef GANLOSS_TERM_NAME
#undef GANLOSS_TERM_CASE

}  // namespace ganloss::math
