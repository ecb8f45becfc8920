// Loops over a span of elements: vectors, sums, and the operands of a term.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace {

using ganloss::Dtype;
using ganloss::cpu::TermSpan;
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
// `lanes` is Full but for the last vector: either the Part of one that the span has, or a full one
// that ends with the span, of whose lanes some Overlap the vector before. That is faster, and right
// where nothing depends on how often an element is written, or on its place.
struct Full {};
struct Part {
  int count;
};
struct Overlap {
  int count;
};
enum class Tail { kPart, kOverlap };

template <typename T, Tail kTail = Tail::kPart, typename Body, typename EndBlock>
HOST_DEVICE void for_each_vector(int64_t count, Body&& body, EndBlock&& end_block) {
  constexpr int kLanes = Vector<T>::kLanes;
  constexpr int64_t kBlock = kAdditions * kUnroll * kLanes;
  int64_t offset = 0;
  while (offset < count) {
    int64_t stop = offset + kBlock < count ? offset + kBlock : count;
    for (; stop - offset >= kUnroll * kLanes; offset += kUnroll * kLanes) {
      body(offset, Full{}, 0);
      body(offset + kLanes, Full{}, 1);
      body(offset + 2 * kLanes, Full{}, 2);
      body(offset + 3 * kLanes, Full{}, 3);
    }
    for (; stop - offset >= kLanes; offset += kLanes) body(offset, Full{}, 0);
    if (offset < stop) {  // in the last block alone: whole blocks are whole vectors
      if (kTail == Tail::kOverlap && count > kLanes)
        body(count - kLanes, Overlap{int(kLanes - (count - offset))}, 0);
      else
        body(offset, Part{int(count - offset)}, 0);
      offset = count;
    }
    end_block();
  }
}

template <typename storage_t>
HOST_DEVICE auto read(const storage_t* from, Full) {
  return load(from);
}
template <typename storage_t>
HOST_DEVICE auto read(const storage_t* from, Overlap) {
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
HOST_DEVICE void write(storage_t* to, V value, Overlap) {
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
HOST_DEVICE V only(V value, Overlap overlap) {
  return drop_first(value, overlap.count);
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

}  // namespace
