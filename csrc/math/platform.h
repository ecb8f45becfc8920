// The one switch between host and device compilation, and the one instruction that the host lacks.
#pragma once

#if defined(__CUDACC__)
#define HOST_DEVICE __host__ __device__ __forceinline__
#else
#define HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace ganloss::math {

// 1 / x within one unit in the last place, of a normal x. On the host, where only the proofs of the
// kernels take it, it is as wrong as on a GPU it may be.
HOST_DEVICE float approximate_reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(x));
  return reciprocal;
#else
  return __builtin_nextafterf(1.0f / x, 2.0f);
#endif
}

}  // namespace ganloss::math
