// The emulated device, for the emulated ops (whose sources do not see it).
#include "device.h"

namespace harness {
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
