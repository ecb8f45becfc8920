// The harness runs every launch at once, whatever the stream. Tests may choose which is the current
// one, and whether it is being captured.
#pragma once

#include <cuda_runtime_api.h>

namespace c10::cuda {

inline cudaStream_t current_stream_of_harness = nullptr;
inline bool is_capturing_in_harness = false;

struct CUDAStream {
  cudaStream_t stream() const { return current_stream_of_harness; }
};
inline CUDAStream getCurrentCUDAStream() {
  return {};
}

}  // namespace c10::cuda
