// What the CPU kernels of one instruction set offer to the ATen side. No torch, no C++ library.
//
// A kernel works on one contiguous run of elements ("span"), or on some rows of a batch, and on
// one thread. Cutting tensors, threads and the order of the sums belong to the caller.
#pragma once

#include <stdint.h>

#include "../../math/dtype.h"
#include "../../math/terms.h"

namespace ganloss::cpu {

// The operands of  w * phi(a - b)  over one span. Weights are in the compute type of the dtype:
// double for double, float for the others.
struct TermSpan {
  const void* a;       // [count]
  const void* b;       // [count], or null: b_scalar serves
  const void* weight;  // [count] in the compute type, or null: 1
  double b_scalar;
  int64_t count;
};

// The incoming second-order gradients of one span: v = va - vb.
struct DirectionSpan {
  const void* va;  // [count] or null: 0
  const void* vb;  // [count] or null: vb_scalar serves
  double vb_scalar;
};

// Rows of a batch that lie one after the other. Where they are parts of longer rows there is one.
struct Rows {
  int64_t count;
  int64_t length;  // of each
};

struct Statistics {
  double sum;             // of x - shift
  double sum_of_squares;  // of x - shift
  double sum_of_signs;
  double nonfinite;
};

struct TermSums {
  double value;     // sum of w phi(a - b)
  double gradient;  // sum of grad_a, or of phi'(a - b) where slopes are written
};

// The slopes of a term with a step, two bits each: 0, a step down, a step up, or NaN. The
// kernels that wrote them are the ones that can read them.
inline constexpr int64_t kSlopesInGroup = 256;  // of the widest vectors; others divide it
inline constexpr int64_t kBytesOfGroup = kSlopesInGroup / 4;

struct Curvature {
  double contraction;  // sum of contraction_scale w phi'(z) v
  double sum;          // sum of scale w phi''(z) v
};

struct Kernels {
  const char* isa;
  // Sum of w phi(a - b).
  double (*term_sum)(Dtype, const math::TermSpec&, const TermSpan&);
  // Statistics of a around shift.
  Statistics (*statistics)(Dtype, const void* a, double shift, int64_t count);
  // grad_a = scale w phi'(a - b), grad_b = -grad_a (each or null); returns the sum of grad_a.
  double (*term_gradient)(Dtype, const math::TermSpec&, const TermSpan&, double scale, void* grad_a,
                          void* grad_b);
  // Both of the two above in one pass over the operands.
  TermSums (*term_sum_and_gradient)(Dtype, const math::TermSpec&, const TermSpan&, double scale,
                                    void* grad_a, void* grad_b);
  // The sum, and the slopes of an unweighted span of a term with a step, a whole number of groups.
  TermSums (*term_sum_and_slopes)(Dtype, const math::TermSpec&, const TermSpan&, void* slopes);
  // gradient = scale times those slopes. Null slopes: all are up.
  void (*gradient_of_slopes)(Dtype, const void* slopes, double step, double scale, void* gradient,
                             int64_t count);
  // x *= factor. Whether all x were in the normal range or 0, so that the product is as good as
  // one of unrounded factors; where they are known to be, nothing is looked at. float and double
  // alone.
  bool (*multiply)(Dtype, void* x, double factor, int64_t count, bool are_normal);
  // Sum of scale w phi(a - b) in double, which floats in the range of float cannot overflow. Slow.
  double (*wide_term_sum)(Dtype, const math::TermSpec&, const TermSpan&, double scale);
  // out_a = scale w phi''(a - b) v, out_b = -out_a (each or null).
  Curvature (*term_curvature)(Dtype, const math::TermSpec&, const TermSpan&, const DirectionSpan&,
                              double scale, double contraction_scale, void* out_a, void* out_b);
  // out = fake + alpha (real - fake), exact at alpha 0 and 1. alpha: one for each element in the
  // compute type, or null: alpha_of_row serves.
  void (*interpolate)(Dtype, const void* real, const void* fake, const void* alpha,
                      const double* alpha_of_row, void* out, const Rows&);
  // out = the sum of x * y, of each row.
  void (*dots)(Dtype, const void* x, const void* y, double* out, const Rows&);
  // out = x_scale x + y_scale y, with a scale for each row; y may be null.
  void (*combine)(Dtype, const void* x, const double* x_scale, const void* y, const double* y_scale,
                  void* out, const Rows&);
};

extern const Kernels kBaseKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace ganloss::cpu
