// The CPU kernels, written once over Vector and compiled once for each instruction set.
//
// An ISA file defines kVectorBytes, GANLOSS_KERNELS (the table's name) and GANLOSS_ISA (its
// label), switches its target on, and includes this file.

#include "vector.h"

#include "kernels.h"

namespace {

using ganloss::cpu::Curvature;
using ganloss::cpu::DirectionSpan;
using ganloss::cpu::Dtype;
using ganloss::cpu::Kernels;
using ganloss::cpu::Statistics;
using ganloss::cpu::TermSpan;
using ganloss::cpu::TermSums;
using ganloss::math::TermSpec;

constexpr int kUnroll = 4;  // independent accumulators, to hide the latency of the adder

// Accumulators are emptied into double after this many additions to each lane, so the rounding
// error of a sum does not grow with its length.
constexpr int kAdditions = 64;

// A sum over a span. Accumulator u takes every kUnroll-th vector.
template <typename T>
class Accumulator {
 public:
  // Spelled out: a constructor that the compiler makes itself does not get the file's target.
  HOST_DEVICE Accumulator() { clear(); }
  HOST_DEVICE void add(int u, Vector<T> x) { partial_[u] = partial_[u] + x; }
  HOST_DEVICE void end_block() {
    total_ += sum_of_lanes((partial_[0] + partial_[1]) + (partial_[2] + partial_[3]));
    clear();
  }
  HOST_DEVICE double total() const { return total_; }

 private:
  HOST_DEVICE void clear() {
    for (auto& partial : partial_) partial = T(0);
  }

  Vector<T> partial_[kUnroll];
  double total_ = 0.0;
};

// Calls body(offset, lanes, u) for every vector of a span and end_block() after every block.
// `lanes` is a compile-time kLanes but for the last vector.
struct Full {};
struct Part {
  int count;
};

template <typename T, typename Body, typename EndBlock>
HOST_DEVICE void for_each_vector(int64_t count, Body&& body, EndBlock&& end_block) {
  constexpr int kLanes = Vector<T>::kLanes;
  constexpr int64_t kBlock = kAdditions * kUnroll * kLanes;
  int64_t offset = 0;
  while (count - offset >= kLanes) {
    int64_t stop = offset + kBlock < count ? offset + kBlock : count;
    for (; stop - offset >= kUnroll * kLanes; offset += kUnroll * kLanes) {
      body(offset, Full{}, 0);
      body(offset + kLanes, Full{}, 1);
      body(offset + 2 * kLanes, Full{}, 2);
      body(offset + 3 * kLanes, Full{}, 3);
    }
    for (; stop - offset >= kLanes; offset += kLanes) body(offset, Full{}, 0);
    end_block();
  }
  if (offset < count) {
    body(offset, Part{int(count - offset)}, 0);
    end_block();
  }
}

template <typename storage_t>
HOST_DEVICE auto read(const storage_t* from, Full) {
  return load(from);
}
template <typename storage_t>
HOST_DEVICE auto read(const storage_t* from, Part part) {
  return load_part(from, part.count);
}
template <typename storage_t, typename V>
HOST_DEVICE void write(storage_t* to, V value, Full) {
  store(to, value);
}
template <typename storage_t, typename V>
HOST_DEVICE void write(storage_t* to, V value, Part part) {
  store_part(to, value, part.count);
}
template <typename V>
HOST_DEVICE V only(V value, Full) {
  return value;
}
template <typename V>
HOST_DEVICE V only(V value, Part part) {
  return keep_first(value, part.count);
}

// The operands of a term span, as vectors. Whether b is a tensor and whether there are weights
// is known at compile time, so the loops have no branches.
template <typename storage_t, bool kPair, bool kWeighted>
struct Operands {
  using T = typename Compute<storage_t>::scalar;

  const storage_t* a;
  const storage_t* b;
  const T* weight;
  Vector<T> b_scalar;

  explicit Operands(const TermSpan& span)
      : a(static_cast<const storage_t*>(span.a)),
        b(static_cast<const storage_t*>(span.b)),
        weight(static_cast<const T*>(span.weight)),
        b_scalar(T(span.b_scalar)) {}

  template <typename Lanes>
  HOST_DEVICE Vector<T> difference(int64_t i, Lanes lanes) const {
    if constexpr (kPair)
      return read(a + i, lanes) - read(b + i, lanes);
    else
      return read(a + i, lanes) - b_scalar;
  }
  // w x, and 0 where w is 0: a masked infinity must not become NaN.
  template <typename Lanes>
  HOST_DEVICE Vector<T> weighted(int64_t i, Lanes lanes, Vector<T> x) const {
    if constexpr (!kWeighted) return x;
    Vector<T> w = kWeighted ? read(weight + i, lanes) : Vector<T>(T(1));
    return select(w == Vector<T>(T(0)), Vector<T>(T(0)), w * x);
  }
};

// Calls visitor(operands) with the storage type and the kind of operands of a span.
template <typename Visitor>
auto visit_dtype(Dtype dtype, Visitor&& visitor) {
  switch (dtype) {
    case Dtype::kFloat:
      return visitor(float{});
    case Dtype::kDouble:
      return visitor(double{});
    case Dtype::kHalf:
      return visitor(Half{});
    default:
      return visitor(BFloat16{});
  }
}
template <typename Visitor>
auto visit_span(Dtype dtype, const TermSpec& spec, const TermSpan& span, Visitor&& visitor) {
  return visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using V = Vector<typename Compute<storage_t>::scalar>;
    return ganloss::math::visit_term<V>(spec, [&](auto term) {
      if (span.weight)
        return span.b ? visitor(term, Operands<storage_t, true, true>(span), storage)
                      : visitor(term, Operands<storage_t, false, true>(span), storage);
      return span.b ? visitor(term, Operands<storage_t, true, false>(span), storage)
                    : visitor(term, Operands<storage_t, false, false>(span), storage);
    });
  });
}

double term_sum(Dtype dtype, const TermSpec& spec, const TermSpan& span) {
  return visit_span(dtype, spec, span, [&](auto term, auto operands, auto storage) {
    using T = typename Compute<decltype(storage)>::scalar;
    Accumulator<T> sum;
    for_each_vector<T>(
        span.count,
        [&](int64_t i, auto lanes, int u) {
          auto value = term.value(operands.difference(i, lanes));
          sum.add(u, only(operands.weighted(i, lanes, value), lanes));
        },
        [&] { sum.end_block(); });
    return sum.total();
  });
}

double term_gradient(Dtype dtype, const TermSpec& spec, const TermSpan& span, double scale,
                     void* grad_a, void* grad_b) {
  return visit_span(dtype, spec, span, [&](auto term, auto operands, auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* out_a = static_cast<storage_t*>(grad_a);
    auto* out_b = static_cast<storage_t*>(grad_b);
    Vector<T> factor = T(scale);
    Accumulator<T> sum;
    for_each_vector<T>(
        span.count,
        [&](int64_t i, auto lanes, int u) {
          auto slope = term.slope(operands.difference(i, lanes));
          auto gradient = factor * operands.weighted(i, lanes, slope);
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
    Vector<T> factor = T(scale);
    Accumulator<T> value_sum, gradient_sum;
    for_each_vector<T>(
        span.count,
        [&](int64_t i, auto lanes, int u) {
          auto z = operands.difference(i, lanes);
          auto value = operands.weighted(i, lanes, term.value(z));
          auto gradient = factor * operands.weighted(i, lanes, term.slope(z));
          value_sum.add(u, only(value, lanes));
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
                         const DirectionSpan& direction, double scale, void* out_a, void* out_b) {
  return visit_span(dtype, spec, span, [&](auto term, auto operands, auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* va = static_cast<const storage_t*>(direction.va);
    auto* vb = static_cast<const storage_t*>(direction.vb);
    auto* to_a = static_cast<storage_t*>(out_a);
    auto* to_b = static_cast<storage_t*>(out_b);
    Vector<T> factor = T(scale);
    Vector<T> vb_scalar = T(direction.vb_scalar);
    Accumulator<T> contraction, sum;
    for_each_vector<T>(
        span.count,
        [&](int64_t i, auto lanes, int u) {
          Vector<T> v =
              (va ? read(va + i, lanes) : Vector<T>(T(0))) - (vb ? read(vb + i, lanes) : vb_scalar);
          auto z = operands.difference(i, lanes);
          contraction.add(u, only(operands.weighted(i, lanes, term.slope(z)) * v, lanes));
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

void interpolate(Dtype dtype, const void* real, const void* fake, const void* alpha,
                 double alpha_scalar, void* out, int64_t count) {
  visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    using V = Vector<T>;
    auto* r = static_cast<const storage_t*>(real);
    auto* f = static_cast<const storage_t*>(fake);
    auto* weights = static_cast<const T*>(alpha);
    auto* to = static_cast<storage_t*>(out);
    const V constant = T(alpha_scalar), one = T(1), half = T(0.5);
    for_each_vector<T>(
        count,
        [&](int64_t i, auto lanes, int) {
          V weight = weights ? read(weights + i, lanes) : constant;
          V from = read(f + i, lanes), towards = read(r + i, lanes);
          V step = towards - from;
          // from the nearer end, as torch.lerp does: both ends come out exactly
          write(to + i,
                select(weight < half, from + weight * step, towards - (one - weight) * step),
                lanes);
        },
        [] {});
  });
}

double dot(Dtype dtype, const void* x, const void* y, int64_t count) {
  return visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* left = static_cast<const storage_t*>(x);
    auto* right = static_cast<const storage_t*>(y);
    Accumulator<T> sum;
    for_each_vector<T>(
        count,
        [&](int64_t i, auto lanes, int u) {
          sum.add(u, read(left + i, lanes) * read(right + i, lanes));
        },
        [&] { sum.end_block(); });
    return sum.total();
  });
}

void combine(Dtype dtype, const void* x, double x_scale, const void* y, double y_scale, void* out,
             int64_t count) {
  visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* left = static_cast<const storage_t*>(x);
    auto* right = static_cast<const storage_t*>(y);
    auto* to = static_cast<storage_t*>(out);
    const Vector<T> left_scale = T(x_scale), right_scale = T(y_scale);
    for_each_vector<T>(
        count,
        [&](int64_t i, auto lanes, int) {
          Vector<T> result = left_scale * read(left + i, lanes);
          if (right) result = result + right_scale * read(right + i, lanes);
          write(to + i, result, lanes);
        },
        [] {});
  });
}

}  // namespace

namespace ganloss::cpu {

const Kernels GANLOSS_KERNELS = {
    .isa = GANLOSS_ISA,
    .term_sum = term_sum,
    .statistics = statistics,
    .term_gradient = term_gradient,
    .term_sum_and_gradient = term_sum_and_gradient,
    .term_curvature = term_curvature,
    .interpolate = interpolate,
    .dot = dot,
    .combine = combine,
};

}  // namespace ganloss::cpu
