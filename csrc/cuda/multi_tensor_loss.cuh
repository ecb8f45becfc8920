// The kernels of multi_tensor_loss: one launch for a whole list of segments.
//
//   total = sum over s of  scale_s * mean( w_s * phi_s(a_s - b_s) )
//
// The list lies in the kernel's arguments, so nothing is copied to the device. Segments are cut
// into chunks of one fixed length, chosen by the host from the total work; block i owns chunk i.
// The term, the dtype and the operands differ between segments but not within a block, so every
// switch on them is taken by a whole block, once for a tile of 1024 or 2048 elements.
//
// Sums are bitwise reproducible: a chunk is summed in a fixed order, its partial sum has a fixed
// place, and the last block to finish adds the partials in that order.
#pragma once

#include <type_traits>

#include "../math/terms.h"
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

// Kernel arguments may take 4 KiB; 32 KiB from CUDA 13 on, where every driver takes them.
constexpr int kSmallArguments = 4096;
#if CUDART_VERSION >= 13000
constexpr int kLargeArguments = 32764;
#else
constexpr int kLargeArguments = kSmallArguments;
#endif
constexpr int kOtherArguments = 64;  // what a kernel takes beside the list

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

// What deviations are counted from: the first element, so that a large mean costs no digits.
template <typename T>
__device__ __forceinline__ T center_of(const Segment<T>& segment) {
  if (segment.count == 0) return T(0);
  const T first = read_scalar<T>(segment.a, segment.dtype);
  return first - first == T(0) ? first : T(0);
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
      load_tile(a, tile, z);
      load_tile(static_cast<const storage_t*>(segment.b) + begin, tile, b);
      see(z);
#pragma unroll
      for (int k = 0; k < kItems; ++k) z[k] -= b[k];
    } else {
      load_tile(a, tile, z);
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

// x = w x, and 0 where w is 0: a masked infinity must not become NaN.
template <typename T, int kItems>
__device__ __forceinline__ void apply_weights(const Segment<T>& segment, int64_t begin,
                                              const Tile& tile, T (&x)[kItems]) {
  if (segment.weight == nullptr) return;
  T weight[kItems];
  if (sizeof(T) == 4 && segment.dtype != Dtype::kFloat)
    load_tile_beside<__half>(segment.weight + begin, tile, weight);
  else
    load_tile_beside<T>(segment.weight + begin, tile, weight);
#pragma unroll
  for (int k = 0; k < kItems; ++k) x[k] = math::select(weight[k] == T(0), T(0), weight[k] * x[k]);
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

// Items of a thread and tile: one 16-byte word of half precision, two of float or double. More
// would cost registers, and with them threads to hide the latency of memory.
template <typename T>
constexpr int kLossItems = 32 / sizeof(T);

// ---- forward ---------------------------------------------------------------------------------

template <typename T, bool kWithStatistics, typename List>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    multi_tensor_loss_kernel(const __grid_constant__ List list,
                             T* total,          // []
                             T* values,         // [segments]
                             T* statistics,     // [segments, 4] or null
                             T* partials,       // [blocks, kSums]
                             unsigned* ticket)  // [1], 0 on entry
{
  // The value; then deviation from a[0], its square, sign, and whether it is not finite.
  constexpr int kSums = kWithStatistics ? 5 : 1;
  constexpr int kItems = kLossItems<T>;
  const auto chunk = chunk_of_block(list);
  const Segment<T>& segment = chunk.segment;
  const T b_scalar = scalar_b(segment);
  T center = 0;
  if constexpr (kWithStatistics) center = center_of(segment);

  T sums[kSums] = {};
  for_each_tile<kItems>(chunk.count, chunk.head, segment.is_aligned, [&](const Tile& tile) {
    T z[kItems];
    load_difference(segment, chunk.begin, tile, b_scalar, z, [&](const T(&a)[kItems]) {
      if constexpr (kWithStatistics) {
#pragma unroll
        for (int k = 0; k < kItems; ++k) {
          const T deviation = tile.has(k) ? a[k] - center : T(0);
          const T sign = a[k] > T(0) ? T(1) : a[k] < T(0) ? T(-1) : T(0);
          sums[1] += deviation;
          sums[2] += deviation * deviation;
          sums[3] += sign;  // a missing item is 0: its sign is 0, and it is finite
          sums[4] += a[k] - a[k] == T(0) ? T(0) : T(1);
        }
      }
    });
    visit_segment_term(segment, [&](auto term) {
#pragma unroll
      for (int k = 0; k < kItems; ++k) z[k] = term.value(z[k]);
    });
    apply_weights(segment, chunk.begin, tile, z);
    sums[0] += sum_items(tile, z);
  });

  block_sum(sums);
  if (threadIdx.x == 0) {
#pragma unroll
    for (int j = 0; j < kSums; ++j)
      partials[static_cast<int64_t>(blockIdx.x) * kSums + j] = sums[j];
  }
  if (!is_last_block(ticket)) return;
  finish_segments<kSums>(list, partials, [&](const Segment<T>& done, const T(&sum)[kSums]) {
    values[done.index] = sum[0] * done.inverse_count;
    if constexpr (kWithStatistics) {
      T* row = statistics + static_cast<int64_t>(done.index) * 4;
      const T mean = sum[1] * done.inverse_count;
      const T variance = sum[2] * done.inverse_count - mean * mean;
      row[0] = center_of(done) + mean;
      row[1] = math::square_root(math::positive_part(variance));
      row[2] = sum[3] * done.inverse_count;
      row[3] = sum[4];
    }
  });
  finish_total(list, values, total);
}

// ---- backward --------------------------------------------------------------------------------

// The gradient of a 0-d b is minus the sum of the gradients of a: only such segments are summed,
// and a list without one needs neither partials nor ticket.
template <typename T, typename List>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    multi_tensor_loss_backward_kernel(const __grid_constant__ List list,
                                      const T* grad_total,   // [] or null
                                      const T* grad_values,  // [segments] or null
                                      T* partials,           // [blocks] or null
                                      unsigned* ticket)      // [1], 0 on entry, or null
{
  constexpr int kItems = kLossItems<T>;
  const auto chunk = chunk_of_block(list);
  const GradientSegment<T>& segment = chunk.segment;
  const T b_scalar = scalar_b(segment);
  const T factor = incoming(segment, grad_total, grad_values);

  T sums[1] = {};
  for_each_tile<kItems>(chunk.count, chunk.head, segment.is_aligned, [&](const Tile& tile) {
    T z[kItems];
    load_difference(segment, chunk.begin, tile, b_scalar, z);
    visit_segment_term(segment, [&](auto term) {
#pragma unroll
      for (int k = 0; k < kItems; ++k) z[k] = term.slope(z[k]);
    });
    apply_weights(segment, chunk.begin, tile, z);
#pragma unroll
    for (int k = 0; k < kItems; ++k) z[k] *= factor;
    if (partials != nullptr) sums[0] += sum_items(tile, z);
    store_gradient(segment, chunk.begin, tile, z);
  });

  if (partials == nullptr) return;
  block_sum(sums);
  if (threadIdx.x == 0) partials[blockIdx.x] = sums[0];
  if (!is_last_block(ticket)) return;
  finish_segments<1>(list, partials, [&](const GradientSegment<T>& done, const T(&sum)[1]) {
    if (done.b_kind == OperandB::kScalar && done.grad_b != nullptr)
      write_scalar<T>(done.grad_b, done.b_dtype, -sum[0]);
  });
}

// ---- double backward -------------------------------------------------------------------------

// With v = va - vb the direction of a - b: the gradients  factor w phi''(z) v  of a (and minus
// that of b), and the contraction  mean(w phi'(z) v), the gradient of a segment's incoming one.
template <typename T, typename List>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    multi_tensor_loss_double_backward_kernel(const __grid_constant__ List list,
                                             const T* grad_total,   // [] or null
                                             const T* grad_values,  // [segments] or null
                                             T* grad_grad_total,    // []
                                             T* grad_grad_values,   // [segments]
                                             T* partials,           // [blocks, 2]
                                             unsigned* ticket)      // [1], 0 on entry
{
  constexpr int kItems = kLossItems<T>;
  const auto chunk = chunk_of_block(list);
  const CurvatureSegment<T>& segment = chunk.segment;
  const T b_scalar = scalar_b(segment);
  const T factor = incoming(segment, grad_total, grad_values);
  const bool has_scalar_vb = segment.b_kind == OperandB::kScalar && segment.vb != nullptr;
  const T vb_scalar = has_scalar_vb ? read_scalar<T>(segment.vb, segment.b_dtype) : T(0);

  T sums[2] = {};  // contraction, gradient of a
  for_each_tile<kItems>(chunk.count, chunk.head, segment.is_aligned, [&](const Tile& tile) {
    T z[kItems], v[kItems];
    load_difference(segment, chunk.begin, tile, b_scalar, z);
    visit_storage<T>(segment.dtype, [&](auto storage) {
      using storage_t = decltype(storage);
#pragma unroll
      for (int k = 0; k < kItems; ++k) v[k] = 0;
      if (segment.va != nullptr)
        load_tile(static_cast<const storage_t*>(segment.va) + chunk.begin, tile, v);
      if (segment.vb != nullptr && segment.b_kind == OperandB::kTensor) {
        T vb[kItems];
        load_tile(static_cast<const storage_t*>(segment.vb) + chunk.begin, tile, vb);
#pragma unroll
        for (int k = 0; k < kItems; ++k) v[k] -= vb[k];
      }
    });
#pragma unroll
    for (int k = 0; k < kItems; ++k) v[k] -= vb_scalar;
    T slope[kItems];
    visit_segment_term(segment, [&](auto term) {
#pragma unroll
      for (int k = 0; k < kItems; ++k) {
        slope[k] = term.slope(z[k]);
        z[k] = term.curvature(z[k]);
      }
    });
    apply_weights(segment, chunk.begin, tile, slope);
#pragma unroll
    for (int k = 0; k < kItems; ++k) slope[k] *= v[k];
    sums[0] += sum_items(tile, slope);
    apply_weights(segment, chunk.begin, tile, z);
#pragma unroll
    for (int k = 0; k < kItems; ++k) z[k] = factor * z[k] * v[k];
    sums[1] += sum_items(tile, z);
    store_gradient(segment, chunk.begin, tile, z);
  });

  block_sum(sums);
  if (threadIdx.x == 0) {
    partials[static_cast<int64_t>(blockIdx.x) * 2] = sums[0];
    partials[static_cast<int64_t>(blockIdx.x) * 2 + 1] = sums[1];
  }
  if (!is_last_block(ticket)) return;
  finish_segments<2>(list, partials, [&](const CurvatureSegment<T>& done, const T(&sum)[2]) {
    grad_grad_values[done.index] = sum[0] * done.inverse_count;
    if (done.b_kind == OperandB::kScalar && done.grad_b != nullptr)
      write_scalar<T>(done.grad_b, done.b_dtype, -sum[1]);
  });
  finish_total(list, grad_grad_values, grad_grad_total);
}

}  // namespace ganloss::cuda
