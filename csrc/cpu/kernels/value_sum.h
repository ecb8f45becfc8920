// The sum of a term's values over a span.
#pragma once

#include "spans.h"

namespace {

template <typename Term, typename Operands>
class ValueSum {
  using T = typename Operands::T;

 public:
  HOST_DEVICE ValueSum() {}
  template <typename Lanes>
  HOST_DEVICE void add(int u, const Term& term, Vector<T> z, const Operands& operands, int64_t i,
                       Lanes lanes) {
    sum_.add(u, only(operands.weighted(i, lanes, term.value(z)), lanes));
  }
  HOST_DEVICE void end_block() { sum_.end_block(); }
  HOST_DEVICE double total() const { return sum_.total(); }

 private:
  Accumulator<T> sum_;
};

// A sum of logarithms is the logarithm of a product: one for all elements that a lane takes in a
// block. What is kept of the product p is p - 1, which 1 would swallow where logits are large:
// (1 + p)(1 + t) - 1 is p + t + p t. All three are positive, so that it rounds like a sum.
template <typename T, typename storage_t, bool kPair>
class ValueSum<ganloss::math::Softplus<Vector<T>>, Operands<storage_t, kPair, false>> {
  static_assert(kAdditions + kUnroll < 127, "a factor is at most 2, and a float at most 2^127");

 public:
  HOST_DEVICE ValueSum() { clear(); }
  template <typename Lanes>
  HOST_DEVICE void add(int u, const ganloss::math::Softplus<Vector<T>>& term, Vector<T> z,
                       const Operands<storage_t, kPair, false>&, int64_t, Lanes lanes) {
    sum_.add(u, only(term.growing(z), lanes));
    const Vector<T> t = only(term.decaying(z), lanes);
    product_[u] = product_[u] * t + (product_[u] + t);
  }
  HOST_DEVICE void end_block() {
    for (int u = 0; u < kUnroll; ++u) sum_.add(u, log1p_positive(product_[u]));
    sum_.end_block();
    clear();
  }
  HOST_DEVICE double total() const { return sum_.total(); }

 private:
  HOST_DEVICE void clear() {
    for (auto& product : product_) product = T(0);
  }

  Accumulator<T> sum_;
  Vector<T> product_[kUnroll];  // less 1
};

}  // namespace
