// Launches in the harness cannot fail to start. The device it plays has two multiprocessors, so
// that small inputs already spread over several blocks.
#pragma once

#include <cuda_runtime_api.h>

#define C10_CUDA_CHECK(expression) (void)(expression)
#define C10_CUDA_KERNEL_LAUNCH_CHECK() (void)0

#define cudaGetDevice(device) (*(device) = 0)
#define cudaDeviceGetAttribute(value, attribute, device) (*(value) = 2)
