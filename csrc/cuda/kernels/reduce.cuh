// Sums over a block, and the hand-over to the block that finishes a launch.
#pragma once

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
// Memory order: thread 0 wrote its block's partial sums; a fence makes them visible before the
// ticket is; the ticket says who is last; a second fence keeps the last block from reading
// partials that were cached before the ticket was taken. It stands before the barrier, so it
// holds for the whole block. The ticket is zeroed for every call: one that calls share would
// race between streams.
__device__ __forceinline__ bool is_last_block(unsigned* ticket) {  // [1], 0 on entry
  if (gridDim.x == 1) {
    __syncthreads();
    return true;
  }
  GANLOSS_SHARED(bool, is_last, 1);
  if (threadIdx.x == 0) {
    __threadfence();
    is_last[0] = atomicAdd(ticket, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  return is_last[0];
}

// The sum of partials[begin], partials[begin + stride], ... below end, in every lane of the warp.
template <typename T>
__device__ __forceinline__ T sum_of_partials(const T* partials,  // [end]
                                             int64_t begin, int64_t end, int stride) {
  T sum = 0;
#pragma unroll 4
  for (int64_t i = begin + static_cast<int64_t>(threadIdx.x % kWarp) * stride; i < end;
       i += kWarp * stride)
    sum += partials[i];
  return warp_sum(sum);
}

}  // namespace ganloss::cuda
