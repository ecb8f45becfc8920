// Stands in for <cuda_runtime.h> so that g++ compiles the CUDA kernels for the CPU.
//
// What is checked, and how faithfully:
// - __syncthreads and __syncwarp order memory; shuffles do not. Atomics (cuda/atomic) order what
//   their memory order says. What nothing orders, ThreadSanitizer reports as a race.
// - Shuffles, barriers and masks are checked for lanes that are missing.
// - half and bfloat16 come from CUDA's own headers, so their rounding is exact. The math
//   functions are the host's, and the compiler may contract differently: results agree to
//   rounding, not bitwise.
// Not modelled: timing, caches, independent scheduling inside a warp between two yields.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cmath>

#include "device.h"

#undef __global__
#undef __device__
#undef __host__
#undef __launch_bounds__
#undef __forceinline__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __grid_constant__

#define GANLOSS_SHARED(type, name, count)   \
  static const char name##_declaration = 0; \
  type* const name =                        \
      static_cast<type*>(harness::shared_array(&name##_declaration, sizeof(type) * (count)))
#define GANLOSS_LAUNCH(kernel, blocks, threads, stream, ...) \
  harness::launch(blocks, threads, [&] { kernel(__VA_ARGS__); }, __VA_ARGS__)

#define threadIdx (harness::thread_position())
#define blockIdx (harness::block_position())
#define blockDim (harness::block_size())
#define gridDim (harness::grid_size())

namespace harness {

// Waits until all lanes of the mask are at the same operation.
HARNESS_UNINSTRUMENTED inline void meet(const char* operation, unsigned mask) {
  Thread* self = current;
  if (!(mask >> self->lane() & 1)) fail("the calling lane is not in its own mask");
  self->operation = operation;
  self->mask = mask;
  yield(State::kAtWarpOperation);
}

// The value that `source` gives in the same operation. No memory order, as on a GPU.
template <typename T>
HARNESS_UNINSTRUMENTED T exchange(const char* operation, unsigned mask, T value, unsigned source) {
  Thread* self = current;
  const unsigned turn = self->turn++ % 2;
  static_assert(sizeof(T) <= sizeof(uint64_t));
  __builtin_memcpy(&self->exchange[turn], &value, sizeof(T));
  meet(operation, mask);
  if (!(mask >> source & 1)) fail("a shuffle reads a lane outside its mask");
  const Thread& other = self->block->threads[self->index - self->lane() + source];
  T result;
  __builtin_memcpy(&result, &other.exchange[turn], sizeof(T));
  return result;
}

}  // namespace harness

HARNESS_UNINSTRUMENTED inline void __syncthreads() {
  harness::Thread* self = harness::current;
  char* barrier = &self->block->barrier[self->barrier_turn++ % 2];
  harness::release(barrier);
  harness::yield(harness::State::kAtBarrier);
  harness::acquire(barrier);
}

HARNESS_UNINSTRUMENTED inline void __syncwarp(unsigned mask = 0xffffffffu) {
  harness::Thread* self = harness::current;
  char* barrier = &self->block->warp_barrier[self->index / harness::kWarpSize];
  harness::release(barrier);
  harness::meet("__syncwarp", mask);
  harness::acquire(barrier);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  return harness::exchange("__shfl_xor_sync", mask, value,
                           harness::this_thread()->lane() ^ static_cast<unsigned>(lane_mask));
}
