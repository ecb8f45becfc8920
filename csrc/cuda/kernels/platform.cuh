// What separates device code under nvcc from the same code on a CPU.
//
// The kernels are tested on machines without a GPU: there g++ compiles these files, and the
// <cuda_runtime.h> it finds is that of tests/proofs/harness, which runs blocks and threads on the
// CPU and brings its own two macros. Nothing else differs.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#if defined(__CUDACC__)
// An array that the threads of one block share.
#define GANLOSS_SHARED(type, name, count) __shared__ type name[count]
// GANLOSS_LAUNCH(kernel, blocks, threads, stream, arguments...)
#define GANLOSS_LAUNCH(kernel, blocks, threads, stream, ...) \
  kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif
