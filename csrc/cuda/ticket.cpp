#include "ticket.h"

#include <c10/cuda/CUDAGraphsC10Utils.h>

#include <mutex>
#include <unordered_map>

#include "device.h"

namespace ganloss::cuda {

namespace {

void zero(unsigned* ticket, cudaStream_t stream) {
  C10_CUDA_CHECK(cudaMemsetAsync(ticket, 0, sizeof(unsigned), stream));
}

// The tickets of the streams of one device. Their memory is no tensor: what the caching allocator
// hands out belongs to whichever pool is in use at the moment, and this stays until the process
// ends.
class StreamTickets {
 public:
  // Null where none is left.
  unsigned* of(cudaStream_t stream) {
    if (const auto found = of_stream_.find(stream); found != of_stream_.end()) return found->second;
    if (of_stream_.size() == kMost) return nullptr;
    if (memory_ == nullptr) memory_ = allocate();
    unsigned* ticket = memory_ + of_stream_.size() * kStride;
    zero(ticket, stream);
    return of_stream_[stream] = ticket;
  }

 private:
  static constexpr size_t kMost = 256;
  static constexpr size_t kStride = 32;  // a cache line apart, for streams that run side by side

  static unsigned* allocate() {
    // Another thread may be capturing: its capture must not be invalidated.
    const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
    void* memory = nullptr;
    C10_CUDA_CHECK(cudaMalloc(&memory, kMost * kStride * sizeof(unsigned)));
    return static_cast<unsigned*>(memory);
  }

  std::unordered_map<cudaStream_t, unsigned*> of_stream_;
  unsigned* memory_ = nullptr;
};

unsigned* ticket_of(c10::Device device, cudaStream_t stream) {
  static std::mutex mutex;
  static std::unordered_map<c10::DeviceIndex, StreamTickets> of_device;
  const std::lock_guard<std::mutex> lock(mutex);
  return of_device[device.index()].of(stream);
}

bool may_run_beside_itself(cudaStream_t stream) {
  return stream == cudaStreamPerThread ||  // the handle of as many streams as there are threads
         c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
}

}  // namespace

Ticket::Ticket(const at::Tensor& like) {
  const cudaStream_t stream = current_stream();
  ticket_ = may_run_beside_itself(stream) ? nullptr : ticket_of(like.device(), stream);
  if (ticket_ != nullptr) return;
  of_call_ = empty_bytes(sizeof(unsigned), like);
  ticket_ = static_cast<unsigned*>(of_call_.mutable_data_ptr());
  zero(ticket_, stream);
}

}  // namespace ganloss::cuda
