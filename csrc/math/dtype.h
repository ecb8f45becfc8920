// What lies in memory, as the kernels are told of it. They compute double in double, and the others
// in float.
#pragma once

#include <stdint.h>

#include "platform.h"

namespace ganloss {

enum class Dtype : uint8_t { kFloat, kDouble, kHalf, kBFloat16 };

HOST_DEVICE int bytes_of(Dtype dtype) {
  return dtype == Dtype::kDouble ? 8 : dtype == Dtype::kFloat ? 4 : 2;
}

}  // namespace ganloss
