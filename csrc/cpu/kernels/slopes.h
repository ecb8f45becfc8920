// Gradients kept from the forward: slopes in two bits each, and factors that come late.
#pragma once

#include "spans.h"

namespace {

using ganloss::cpu::TermSums;

// Slopes are packed lane by lane: a word of lane l holds those of the elements l, l + kLanes,
// l + 2 kLanes and so on, the first in its highest bits. So packing needs no shuffles, and a
// comparison with 0 unpacks.
template <typename T>
constexpr int64_t kGroup = Vector<T>::kLanes * int(sizeof(T)) * 4;

template <typename T>
struct SlopeWord {
  typename Vector<T>::Bits bits;

  // Spelled out: a constructor that the compiler makes itself does not get the file's target.
  HOST_DEVICE SlopeWord() : bits(typename Vector<T>::Bits{}) {}
  HOST_DEVICE void push(Vector<T> slope) {
    const Vector<T> zero = T(0);
    bits = (bits << 2) | (~(slope >= zero).bits & 2) | (~(slope <= zero).bits & 1);
  }
  HOST_DEVICE Vector<T> pop(Vector<T> zero, Vector<T> down, Vector<T> up, Vector<T> nan) {
    const Mask<T> is_down{bits < 0}, is_up{(bits << 1) < 0};
    bits <<= 2;
    return select(is_down, select(is_up, nan, down), select(is_up, up, zero));
  }
};

TermSums term_sum_and_slopes(Dtype dtype, const TermSpec& spec, const TermSpan& span,
                             void* slopes) {
  return visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    constexpr int kLanes = Vector<T>::kLanes;
    return ganloss::math::visit_term<Vector<T>>(spec, [&](auto term) {
      const auto run = [&](auto operands) {
        auto* to = static_cast<char*>(slopes);
        const Vector<T> one = T(1);
        Accumulator<T> value_sum, slope_sum;
        SlopeWord<T> word;
        for_each_vector<T>(
            span.count,
            [&](int64_t i, auto lanes, int u) {
              auto z = operands.difference(i, lanes);
              auto slope = term.slope(z, one);
              value_sum.add(u, only(term.value(z), lanes));
              slope_sum.add(u, only(slope, lanes));
              word.push(slope);
              if ((i + kLanes) % kGroup<T> == 0) {
                __builtin_memcpy(to + i / kGroup<T> * kVectorBytes, &word.bits, kVectorBytes);
              }
            },
            [&] {
              value_sum.end_block();
              slope_sum.end_block();
            });
        const int64_t rest = span.count % kGroup<T>;
        const int64_t pushed = (rest + kLanes - 1) / kLanes;
        if (pushed > 0 && pushed < kGroup<T> / kLanes) {
          word.bits <<= 2 * (kGroup<T> / kLanes - pushed);
          __builtin_memcpy(to + span.count / kGroup<T> * kVectorBytes, &word.bits, kVectorBytes);
        }
        return TermSums{value_sum.total(), slope_sum.total()};
      };
      return span.b ? run(Operands<storage_t, true, false>(span))
                    : run(Operands<storage_t, false, false>(span));
    });
  });
}

void gradient_of_slopes(Dtype dtype, const void* slopes, double step, double scale, void* gradient,
                        int64_t count) {
  visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* from = static_cast<const char*>(slopes);
    auto* to = static_cast<storage_t*>(gradient);
    const T factor = T(scale), up_scalar = factor * T(step);
    const Vector<T> zero = factor * T(0), up = up_scalar, down = -up_scalar;
    const Vector<T> nan = T(__builtin_nan(""));
    SlopeWord<T> word;
    for_each_vector<T>(
        count,
        [&](int64_t i, auto lanes, int) {
          Vector<T> value = up;
          if (from) {
            if (i % kGroup<T> == 0)
              __builtin_memcpy(&word.bits, from + i / kGroup<T> * kVectorBytes, kVectorBytes);
            value = word.pop(zero, down, up, nan);
          }
          write(to + i, value, lanes);
        },
        [] {});
  });
}

template <typename T>
void multiply_span(T* x, T scale, int64_t count) {
  const Vector<T> factor = scale;
  for_each_vector<T>(
      count, [&](int64_t i, auto lanes, int) { write(x + i, factor * read(x + i, lanes), lanes); },
      [] {});
}

// Also tells whether every x was 0 or a normal number. By the bits of |x|: those of the numbers
// below the normal ones, less 1, are the least but for 0, which wraps around to the largest.
template <typename T>
bool multiply_normal_span(T* x, T scale, int64_t count) {
  typedef typename Simd<T>::Unsigned Unsigned;
  const Vector<T> factor = scale;
  const Unsigned first_normal = (Unsigned)Vector<T>(Simd<T>::kLeastNormal).native;
  const Unsigned last_normal = (Unsigned)Vector<T>(Simd<T>::kLargest).native;
  Unsigned least = ~Unsigned{}, largest{};
  for_each_vector<T>(
      count,
      [&](int64_t i, auto lanes, int) {
        Vector<T> value = read(x + i, lanes);
        Unsigned size = (Unsigned)absolute(value).native;
        Unsigned below = size - 1;
        least = below < least ? below : least;
        largest = size > largest ? size : largest;
        write(x + i, factor * value, lanes);
      },
      [] {});
  bool fits = true;
  for (int lane = 0; lane < Vector<T>::kLanes; ++lane)
    fits &= least[lane] >= first_normal[lane] - 1 && largest[lane] <= last_normal[lane];
  return fits;
}

bool multiply(Dtype dtype, void* x, double factor, int64_t count, bool are_normal) {
  const auto run = [&](auto* numbers, auto scale) {
    if (!are_normal) return multiply_normal_span(numbers, scale, count);
    multiply_span(numbers, scale, count);
    return true;
  };
  return dtype == Dtype::kDouble ? run(static_cast<double*>(x), factor)
                                 : run(static_cast<float*>(x), float(factor));
}

}  // namespace
