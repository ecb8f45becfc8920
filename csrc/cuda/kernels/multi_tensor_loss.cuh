// The kernels of multi_tensor_loss: one launch for a whole list of segments.
//
//   total = sum over s of  scale_s * mean( w_s * phi_s(a_s - b_s) )
//
// The list lies in the kernel's arguments, so nothing is copied to the device. Segments are cut
// into chunks of one fixed length, chosen by the host (multi_tensor_loss.cu); block i owns chunk i.
// The term, the dtype and the operands differ between segments but not within a block, so every
// switch on them is taken by a whole block, once for a tile of 1024 or 2048 elements.
//
// Sums are bitwise reproducible: a chunk is summed in a fixed order, its partial sum has a fixed
// place, and the last block to finish adds the partials in that order.
#pragma once

#include "segments.cuh"

namespace ganloss::cuda {

// Items of a thread and tile: one 16-byte word of half precision, two of float or double. More
// would cost registers, and with them threads to hide the latency of memory.
template <typename T>
constexpr int kLossItems = 32 / sizeof(T);

// The most partial sums of a block: those of the forward with statistics.
constexpr int kMostSums = 5;

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
  // The value; then deviation from the center, its square, sign, and whether it is not finite.
  constexpr int kSums = kWithStatistics ? kMostSums : 1;
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
  const math::Factor<T> factor(incoming(segment, grad_total, grad_values),
                               segment.weight != nullptr);

  T sums[1] = {};
  for_each_tile<kItems>(chunk.count, chunk.head, segment.is_aligned, [&](const Tile& tile) {
    T z[kItems] = {};
    if (!segment.has_constant_slope) load_difference(segment, chunk.begin, tile, b_scalar, z);
    visit_segment_term(segment, [&](auto term) {
#pragma unroll
      for (int k = 0; k < kItems; ++k) z[k] = term.slope(z[k], factor.before);
    });
    apply_weights(segment, chunk.begin, tile, z);
#pragma unroll
    for (int k = 0; k < kItems; ++k) z[k] *= factor.after;
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
  const bool is_pair = segment.b_kind == OperandB::kTensor;
  const bool reads_z = !segment.has_constant_slope;
  const bool has_scalar_vb = segment.b_kind == OperandB::kScalar && segment.vb != nullptr;
  const T vb_scalar = has_scalar_vb ? read_scalar<T>(segment.vb, segment.b_dtype) : T(0);

  T sums[2] = {};  // contraction, gradient of a
  for_each_tile<kItems>(chunk.count, chunk.head, segment.is_aligned, [&](const Tile& tile) {
    T z[kItems], v[kItems], b[kItems], vb[kItems];
    visit_storage<T>(segment.dtype, [&](auto storage) {
      const auto at = [&](const void* run) {
        return static_cast<const decltype(storage)*>(run) + chunk.begin;
      };
      load_tile(tile, Operand{at(segment.a), z, reads_z},
                Operand{at(segment.b), b, reads_z && is_pair},
                Operand{at(segment.va), v, segment.va != nullptr},
                Operand{at(segment.vb), vb, is_pair && segment.vb != nullptr});
    });
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
      z[k] -= b[k] + b_scalar;
      v[k] -= vb[k] + vb_scalar;
    }
    T slope[kItems];
    visit_segment_term(segment, [&](auto term) {
#pragma unroll
      for (int k = 0; k < kItems; ++k) {
        slope[k] = term.slope(z[k], segment.inverse_count);
        z[k] = term.curvature(z[k]);
      }
    });
    apply_weights(segment, chunk.begin, tile, slope, z);
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
      slope[k] *= v[k];
      z[k] = factor * z[k] * v[k];
    }
    sums[0] += sum_items(tile, slope);
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
    grad_grad_values[done.index] = done.count == 0 ? T(NAN) : sum[0];  // a mean over nothing
    if (done.b_kind == OperandB::kScalar && done.grad_b != nullptr)
      write_scalar<T>(done.grad_b, done.b_dtype, -sum[1]);
  });
  finish_total(list, grad_grad_values, grad_grad_total);
}

}  // namespace ganloss::cuda
