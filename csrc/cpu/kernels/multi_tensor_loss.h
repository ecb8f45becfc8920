// The kernels of multi_tensor_loss over one span: values, gradients, curvature, statistics.
#pragma once

#include "spans.h"
#include "value_sum.h"

namespace {

using ganloss::cpu::Curvature;
using ganloss::cpu::DirectionSpan;
using ganloss::cpu::Statistics;
using ganloss::cpu::TermSums;
using ganloss::math::Factor;

double term_sum(Dtype dtype, const TermSpec& spec, const TermSpan& span) {
  return visit_span(dtype, spec, span, [&](auto term, auto operands, auto storage) {
    using T = typename Compute<decltype(storage)>::scalar;
    ValueSum<decltype(term), decltype(operands)> sum;
    for_each_vector<T>(
        span.count,
        [&](int64_t i, auto lanes, int u) {
          sum.add(u, term, operands.difference(i, lanes), operands, i, lanes);
        },
        [&] { sum.end_block(); });
    return sum.total();
  });
}

// The elements of a span one by one in double.
double wide_term_sum(Dtype dtype, const TermSpec& spec, const TermSpan& span, double scale) {
  return visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* a = static_cast<const storage_t*>(span.a);
    auto* b = static_cast<const storage_t*>(span.b);
    auto* weight = static_cast<const T*>(span.weight);
    return ganloss::math::visit_term<double>(spec, [&](auto term) {
      double sum = 0.0;
      for (int64_t i = 0; i < span.count; ++i) {
        const double z = load_one(a + i) - (b ? load_one(b + i) : span.b_scalar);
        const double w = weight ? double(weight[i]) : 1.0;
        if (w != 0.0) sum += scale * w * term.value(z);
      }
      return sum;
    });
  });
}

double term_gradient(Dtype dtype, const TermSpec& spec, const TermSpan& span, double scale,
                     void* grad_a, void* grad_b) {
  return visit_span(dtype, spec, span, [&](auto term, auto operands, auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* out_a = static_cast<storage_t*>(grad_a);
    auto* out_b = static_cast<storage_t*>(grad_b);
    const Factor<T> factor(T(scale), span.weight != nullptr);
    const Vector<T> before = factor.before, after = factor.after;
    Accumulator<T> sum;
    for_each_vector<T>(
        span.count,
        [&](int64_t i, auto lanes, int u) {
          auto slope = term.slope(operands.difference(i, lanes), before);
          auto gradient = after * operands.weighted(i, lanes, slope);
          sum.add(u, only(gradient, lanes));
          if (out_a) write(out_a + i, gradient, lanes);
          if (out_b) write(out_b + i, -gradient, lanes);
        },
        [&] { sum.end_block(); });
    return sum.total();
  });
}

TermSums term_sum_and_gradient(Dtype dtype, const TermSpec& spec, const TermSpan& span,
                               double scale, void* grad_a, void* grad_b) {
  return visit_span(dtype, spec, span, [&](auto term, auto operands, auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* out_a = static_cast<storage_t*>(grad_a);
    auto* out_b = static_cast<storage_t*>(grad_b);
    const Factor<T> factor(T(scale), span.weight != nullptr);
    const Vector<T> before = factor.before, after = factor.after;
    ValueSum<decltype(term), decltype(operands)> value_sum;
    Accumulator<T> gradient_sum;
    for_each_vector<T>(
        span.count,
        [&](int64_t i, auto lanes, int u) {
          auto z = operands.difference(i, lanes);
          auto gradient = after * operands.weighted(i, lanes, term.slope(z, before));
          value_sum.add(u, term, z, operands, i, lanes);
          gradient_sum.add(u, only(gradient, lanes));
          if (out_a) write(out_a + i, gradient, lanes);
          if (out_b) write(out_b + i, -gradient, lanes);
        },
        [&] {
          value_sum.end_block();
          gradient_sum.end_block();
        });
    return TermSums{value_sum.total(), gradient_sum.total()};
  });
}

Curvature term_curvature(Dtype dtype, const TermSpec& spec, const TermSpan& span,
                         const DirectionSpan& direction, double scale, double contraction_scale,
                         void* out_a, void* out_b) {
  return visit_span(dtype, spec, span, [&](auto term, auto operands, auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* va = static_cast<const storage_t*>(direction.va);
    auto* vb = static_cast<const storage_t*>(direction.vb);
    auto* to_a = static_cast<storage_t*>(out_a);
    auto* to_b = static_cast<storage_t*>(out_b);
    Vector<T> factor = T(scale);
    Vector<T> contraction_factor = T(contraction_scale);
    Vector<T> vb_scalar = T(direction.vb_scalar);
    Accumulator<T> contraction, sum;
    for_each_vector<T>(
        span.count,
        [&](int64_t i, auto lanes, int u) {
          Vector<T> v =
              (va ? read(va + i, lanes) : Vector<T>(T(0))) - (vb ? read(vb + i, lanes) : vb_scalar);
          auto z = operands.difference(i, lanes);
          auto slope = operands.weighted(i, lanes, term.slope(z, contraction_factor));
          contraction.add(u, only(slope * v, lanes));
          auto curved = factor * operands.weighted(i, lanes, term.curvature(z)) * v;
          sum.add(u, only(curved, lanes));
          if (to_a) write(to_a + i, curved, lanes);
          if (to_b) write(to_b + i, -curved, lanes);
        },
        [&] {
          contraction.end_block();
          sum.end_block();
        });
    return Curvature{contraction.total(), sum.total()};
  });
}

Statistics statistics(Dtype dtype, const void* a, double shift, int64_t count) {
  return visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    using V = Vector<T>;
    auto* x = static_cast<const storage_t*>(a);
    const V zero = T(0), one = T(1), center = T(shift);
    Accumulator<T> sum, squares, signs, nonfinite;
    for_each_vector<T>(
        count,
        [&](int64_t i, auto lanes, int u) {
          V value = read(x + i, lanes);
          V deviation = value - center;
          sum.add(u, only(deviation, lanes));
          squares.add(u, only(deviation * deviation, lanes));
          signs.add(u,
                    only(select(value > zero, one, zero) - select(value < zero, one, zero), lanes));
          nonfinite.add(u, only(select(value - value == zero, zero, one), lanes));
        },
        [&] {
          sum.end_block();
          squares.end_block();
          signs.end_block();
          nonfinite.end_block();
        });
    return Statistics{sum.total(), squares.total(), signs.total(), nonfinite.total()};
  });
}

}  // namespace
