// Sums over a block, and the hand-over to the block that finishes a launch.
#pragma once

#include <cuda/atomic>

#include "tile.cuh"

namespace ganloss::cuda {

// The sum over `kWidth` neighbouring lanes, in every one of them.
template <int kWidth = kWarp, typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int distance = kWidth / 2; distance > 0; distance /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, distance);
  return x;
}

// Sums over the block, in thread 0; the order is fixed. May be called again and again.
template <int kSums, typename T>
__device__ __forceinline__ void block_sum(T (&sums)[kSums]) {
  GANLOSS_SHARED(T, of_warp, kSums * kWarps);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  __syncthreads();  // the sums of an earlier call have been read
#pragma unroll
  for (int j = 0; j < kSums; ++j) {
    const T sum = warp_sum(sums[j]);
    if (lane == 0) of_warp[j * kWarps + warp] = sum;
  }
  __syncthreads();
  if (warp != 0) return;
#pragma unroll
  for (int j = 0; j < kSums; ++j)
    sums[j] = warp_sum<kWarps>(lane < kWarps ? of_warp[j * kWarps + lane] : T(0));
}

// Whether this block is the last of the launch to arrive, so that it sees what thread 0 of every
// other block wrote before. Call it once, from every thread.
//
// Memory order: the ticket is an acquire-release atomic. Release: the partial sums that thread 0
// wrote are visible before its block is counted. Acquire: the last block reads no partials that
// were cached before; the barrier hands that on to its other threads.
//
// The last block leaves the ticket as it found it, at 0, for the next launch of the stream.
__device__ __forceinline__ bool is_last_block(unsigned* ticket) {  // [1], 0 on entry and at the end
  if (gridDim.x == 1) {
    __syncthreads();
    return true;
  }
  GANLOSS_SHARED(bool, is_last, 1);
  if (threadIdx.x == 0) {
    ::cuda::atomic_ref<unsigned, ::cuda::thread_scope_device> arrived(*ticket);
    is_last[0] = arrived.fetch_add(1u, ::cuda::memory_order_acq_rel) == gridDim.x - 1;
    if (is_last[0]) *ticket = 0;
  }
  __syncthreads();
  return is_last[0];
}

// The sum of partials[begin], partials[begin + stride], ... below end, in every lane of the warp.
// They are requested sixteen at a time, so a wave of blocks is there after two or three waits.
template <typename T>
__device__ __forceinline__ T sum_of_partials(const T* partials,  // [end]
                                             int64_t begin, int64_t end, int stride) {
  constexpr int kBatch = 16;
  const int64_t step = int64_t(kWarp) * stride;
  T sum = 0;
  for (int64_t i = begin + static_cast<int64_t>(threadIdx.x % kWarp) * stride; i < end;
       i += kBatch * step) {
    T batch[kBatch];
#pragma unroll
    for (int u = 0; u < kBatch; ++u) batch[u] = i + u * step < end ? partials[i + u * step] : T(0);
#pragma unroll
    for (int u = 0; u < kBatch; ++u) sum += batch[u];
  }
  return warp_sum(sum);
}

}  // namespace ganloss::cuda
