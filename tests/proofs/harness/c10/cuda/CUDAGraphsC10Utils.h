// Captures in the harness: nothing is recorded, what is called runs at once.
#pragma once

#include "CUDAStream.h"

namespace c10::cuda {

enum class CaptureStatus { None, Active };
inline CaptureStatus currentStreamCaptureStatusMayInitCtx() {
  return is_capturing_in_harness ? CaptureStatus::Active : CaptureStatus::None;
}

struct CUDAStreamCaptureModeGuard {
  explicit CUDAStreamCaptureModeGuard(cudaStreamCaptureMode) {}
};

}  // namespace c10::cuda
