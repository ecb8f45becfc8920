// A node that stands in for ConvolutionBackwardBackward0; see weight_gradient.cpp.
#pragma once

#include "stand_in.h"

namespace ganloss {

inline constexpr const char* kFastConvolutionSecondOrder = "GanlossConvolutionBackwardBackward0";

// A node that sends along the same edges what `stock`, a ConvolutionBackwardBackward0, would send,
// equal to rounding. Null if the weight gets no gradient.
NodeHandle fast_weight_gradient(const NodeHandle& stock);

}  // namespace ganloss
