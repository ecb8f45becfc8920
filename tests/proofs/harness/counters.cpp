// The emulated device, for the emulated ops (whose sources do not see it).
#include <cuda_runtime_api.h>

#include "device.h"

namespace harness {
cudaError_t allocate(void** memory, size_t bytes) {
  *memory = std::malloc(bytes);
  return cudaSuccess;
}
cudaError_t memset_async(void* to, int value, size_t bytes, cudaStream_t) {
  ++Device::instance().memsets;
  std::memset(to, value, bytes);
  return cudaSuccess;
}
long count_launches() {
  return Device::instance().launches;
}
long count_memsets() {
  return Device::instance().memsets;
}
void set_schedule(long seed) {
  Device::instance().set_seed(seed);
}
}  // namespace harness
