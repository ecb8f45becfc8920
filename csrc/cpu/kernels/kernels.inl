// The table of the CPU kernels, which are written once over Vector and compiled once for each
// instruction set.
//
// An ISA file defines kVectorBytes, GANLOSS_KERNELS (the table's name) and GANLOSS_ISA (its
// label), switches its target on, and includes this file.

#include "interpolate.h"
#include "multi_tensor_loss.h"
#include "norm_penalty.h"
#include "slopes.h"

namespace ganloss::cpu {

const Kernels GANLOSS_KERNELS = {
    .isa = GANLOSS_ISA,
    .term_sum = term_sum,
    .statistics = statistics,
    .term_gradient = term_gradient,
    .term_sum_and_gradient = term_sum_and_gradient,
    .term_sum_and_slopes = term_sum_and_slopes,
    .gradient_of_slopes = gradient_of_slopes,
    .multiply = multiply,
    .wide_term_sum = wide_term_sum,
    .term_curvature = term_curvature,
    .interpolate = interpolate,
    .dots = dots,
    .combine = combine,
};

}  // namespace ganloss::cpu
