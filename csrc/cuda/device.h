// What the CUDA ops share on the host: the device, its memory, and calls over batches.
//
// Nothing synchronises: scalars that live on the device are read there.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "../host/dtype.h"
#include "../host/samples.h"
#include "kernels/launch.h"

namespace ganloss::cuda {

// Multiprocessors of the current device. They fix the number of blocks, and with it the order of
// every sum: results are bitwise reproducible on one kind of device.
int multiprocessors();

inline cudaStream_t current_stream() {
  return c10::cuda::getCurrentCUDAStream().stream();
}

// Workspace of a call, from the caching allocator: its memory goes to no other stream before the
// call is over, and under capture it belongs to the graph.
inline at::Tensor empty_bytes(int64_t bytes, const at::Tensor& like) {
  return at::empty({bytes}, like.options().dtype(at::kByte));
}

inline at::Tensor empty_like_dense(const at::Tensor& like) {
  return at::empty_strided(like.sizes(), like.strides(), like.options());
}

inline const void* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}
inline void* mutable_pointer(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
}

// A call over `batch`, whose samples are blocks of memory, as `rows` rows. Workspace and ticket are
// left to the ops that need them.
inline BatchCall batch_call(const at::Tensor& batch, int64_t rows) {
  return {rows, row_length(batch, rows), dtype_of(batch), multiprocessors(), current_stream()};
}

}  // namespace ganloss::cuda
