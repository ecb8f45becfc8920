// What the emulated device has done, for the emulated ops (whose sources do not see the device).
#include "device.h"

namespace harness {
long count_launches() { return Device::instance().launches; }
long count_memsets() { return Device::instance().memsets; }
}  // namespace harness
