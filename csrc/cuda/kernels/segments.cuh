// Segments on the device: the list in the kernel's arguments, the chunk of a block, what a tile
// loads and stores, and what the last block adds up.
#pragma once

#include <type_traits>

#include "../../math/statistics.h"
#include "../../math/terms.h"
#include "reduce.cuh"

namespace ganloss::cuda {

// One segment as the kernels take it. T is the compute type.
template <typename T>
struct Segment {
  const void* a;    // [count]
  const void* b;    // [count], [] or null
  const T* weight;  // [count] or null
  int64_t count;
  T first, second;  // parameters of the term
  T scale;
  T inverse_count;  // 1 / count: infinite for an empty segment, whose mean is NaN
  int first_block;  // the block that owns its first chunk
  int index;        // its row in the outputs
  Dtype dtype;
  OperandB b_kind;
  Dtype b_dtype;
  uint8_t term;
  uint8_t head;     // elements before the first 16-byte boundary
  bool is_aligned;  // all operands reach a boundary at the same element
  bool has_constant_slope;
};

template <typename T>
struct GradientSegment : Segment<T> {
  void* grad_a;  // [count] or null
  void* grad_b;  // [count], [] or null
};

template <typename T>
struct CurvatureSegment : GradientSegment<T> {
  const void* va;  // [count] or null
  const void* vb;  // [count], [] or null
};

constexpr int kOtherArguments = 64;  // bytes of what a kernel takes beside the list

template <typename Entry, int kBytes>
struct SegmentList {
  static constexpr int kCapacity = (kBytes - kOtherArguments) / sizeof(Entry) - 1;

  int size;
  int blocks;     // chunks of all segments
  int chunk;      // elements of a chunk; a segment's first one also holds its head
  bool is_first;  // of the launches of its call
  Entry entries[kCapacity];
};

// The chunk of this block.
template <typename Entry>
struct Chunk {
  const Entry& segment;
  int64_t begin;
  int count;
  int head;
};

template <typename List>
__device__ __forceinline__ auto chunk_of_block(const List& list) {
  const int block = blockIdx.x;
  int low = 0, high = list.size;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (list.entries[middle].first_block <= block ? low : high) = middle;
  }
  const auto& segment = list.entries[low];
  const int64_t index = block - segment.first_block;
  const int64_t end = segment.head + (index + 1) * list.chunk;
  const int64_t begin = index == 0 ? 0 : end - list.chunk;
  const int64_t limit = end < segment.count ? end : segment.count;
  return Chunk<std::remove_cvref_t<decltype(segment)>>{
      segment, begin, static_cast<int>(limit - begin), index == 0 ? segment.head : 0};
}

// What the deviations of a segment are counted from.
template <typename T>
__device__ __forceinline__ T center_of(const Segment<T>& segment) {
  if (segment.count == 0) return T(0);
  T elements[math::kCenterElements];
  visit_storage<T>(segment.dtype, [&](auto storage) {
    const auto* a = static_cast<const decltype(storage)*>(segment.a);
#pragma unroll
    for (int k = 0; k < math::kCenterElements; ++k)
      elements[k] = to_compute(a[math::center_element(k, segment.count)]);
  });
  return math::center_of(elements);
}

template <typename T>
__device__ __forceinline__ T scalar_b(const Segment<T>& segment) {
  return segment.b_kind == OperandB::kScalar ? read_scalar<T>(segment.b, segment.b_dtype) : T(0);
}

// z = a - b of one tile. See(a) is called with the items of a.
template <typename T, int kItems, typename See>
__device__ __forceinline__ void load_difference(const Segment<T>& segment, int64_t begin,
                                                const Tile& tile, T b_scalar, T (&z)[kItems],
                                                See&& see) {
  visit_storage<T>(segment.dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    const storage_t* a = static_cast<const storage_t*>(segment.a) + begin;
    if (segment.b_kind == OperandB::kTensor) {
      T b[kItems];
      load_tile(tile, Operand{a, z}, Operand{static_cast<const storage_t*>(segment.b) + begin, b});
      see(z);
#pragma unroll
      for (int k = 0; k < kItems; ++k) z[k] -= b[k];
    } else {
      load_tile(tile, Operand{a, z});
      see(z);
#pragma unroll
      for (int k = 0; k < kItems; ++k) z[k] -= b_scalar;
    }
  });
}
template <typename T, int kItems>
__device__ __forceinline__ void load_difference(const Segment<T>& segment, int64_t begin,
                                                const Tile& tile, T b_scalar, T (&z)[kItems]) {
  load_difference(segment, begin, tile, b_scalar, z, [](const T(&)[kItems]) {});
}

// Each x = w x, and 0 where w is 0: a masked infinity must not become NaN.
template <typename T, int kItems, typename... Rest>
__device__ __forceinline__ void apply_weights(const Segment<T>& segment, int64_t begin,
                                              const Tile& tile, T (&x)[kItems], Rest&... rest) {
  if (segment.weight == nullptr) return;
  T weight[kItems];
  if (sizeof(T) == 4 && segment.dtype != Dtype::kFloat)
    load_tile(tile, beside<__half>(segment.weight + begin, weight));
  else
    load_tile(tile, beside<T>(segment.weight + begin, weight));
  const auto weigh = [&](T(&y)[kItems]) {
#pragma unroll
    for (int k = 0; k < kItems; ++k) y[k] = math::select(weight[k] == T(0), T(0), weight[k] * y[k]);
  };
  weigh(x);
  (weigh(rest), ...);
}

template <typename T, typename Visitor>
__device__ __forceinline__ void visit_segment_term(const Segment<T>& segment, Visitor&& visitor) {
  math::visit_term<T>(math::TermSpec{segment.term, segment.first, segment.second}, visitor);
}

// The sum over the items that are elements.
template <typename T, int kItems>
__device__ __forceinline__ T sum_items(const Tile& tile, const T (&x)[kItems]) {
  T sum = 0;
#pragma unroll
  for (int k = 0; k < kItems; ++k) sum += tile.has(k) ? x[k] : T(0);
  return sum;
}

template <typename T, int kItems>
__device__ __forceinline__ void store_gradient(const GradientSegment<T>& segment, int64_t begin,
                                               const Tile& tile, T (&x)[kItems]) {
  visit_storage<T>(segment.dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    if (segment.grad_a != nullptr)
      store_tile(static_cast<storage_t*>(segment.grad_a) + begin, tile, x);
    if (segment.grad_b != nullptr && segment.b_kind == OperandB::kTensor) {
#pragma unroll
      for (int k = 0; k < kItems; ++k) x[k] = -x[k];
      store_tile(static_cast<storage_t*>(segment.grad_b) + begin, tile, x);
    }
  });
}

// The last block, one warp for each segment: calls finish(segment, sums) in lane 0 with the sums
// over the segment's partials.
template <int kSums, typename T, typename List, typename Finish>
__device__ __forceinline__ void finish_segments(const List& list,
                                                const T* partials,  // [blocks, kSums]
                                                Finish&& finish) {
  for (int s = threadIdx.x / kWarp; s < list.size; s += kWarps) {
    const auto& segment = list.entries[s];
    const int64_t begin = segment.first_block;
    const int64_t end = s + 1 < list.size ? list.entries[s + 1].first_block : list.blocks;
    T sums[kSums];
#pragma unroll
    for (int j = 0; j < kSums; ++j)
      sums[j] = sum_of_partials(partials + j, begin * kSums, end * kSums, kSums);
    if (threadIdx.x % kWarp == 0) finish(segment, sums);
  }
}

// total (+)= sum over the list of scale * values, in the last block, once the values are there.
template <typename T, typename List>
__device__ __forceinline__ void finish_total(const List& list,
                                             const T* values,  // [segments of the call]
                                             T* total) {       // []
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  T sum = 0;
  for (int s = threadIdx.x; s < list.size; s += kWarp)
    sum += list.entries[s].scale * values[list.entries[s].index];
  sum = warp_sum(sum);
  if (threadIdx.x == 0) *total = list.is_first ? sum : *total + sum;
}

// d total / d sum of a segment: its incoming gradient over its number of elements.
template <typename T>
__device__ __forceinline__ T incoming(const Segment<T>& segment,
                                      const T* grad_total,     // [] or null
                                      const T* grad_values) {  // [segments] or null
  T gradient = 0;
  if (grad_total != nullptr) gradient += *grad_total * segment.scale;
  if (grad_values != nullptr) gradient += grad_values[segment.index];
  return gradient * segment.inverse_count;
}

}  // namespace ganloss::cuda
