// Launches in the harness cannot fail to start. The device it plays has two multiprocessors, so
// that small inputs already spread over several blocks.
#pragma once

#include <cuda_runtime_api.h>

#define C10_CUDA_CHECK(expression) (void)(expression)
#define C10_CUDA_KERNEL_LAUNCH_CHECK() (void)0

#define cudaGetDevice(device) (*(device) = 0)
#define cudaDeviceGetAttribute(value, attribute, device) (*(value) = 2)
#define cudaMalloc harness::allocate
#define cudaMemsetAsync harness::memset_async

namespace harness {
cudaError_t allocate(void** memory, size_t bytes);
cudaError_t memset_async(void* to, int value, size_t bytes, cudaStream_t);
}  // namespace harness
