// A node that stands in for ConvolutionBackwardBackward0; see constant_weight.cpp.
#pragma once

#include "stand_in.h"

namespace ganloss {

inline constexpr const char* kConstantConvolutionSecondOrder =
    "GanlossConstantConvolutionBackwardBackward0";

// A node that sends along the same edges what `stock`, a ConvolutionBackwardBackward0, would send,
// equal to the bit. Null if the weight needs a gradient, or if the inner gradient includes the
// layer's parameters.
NodeHandle without_weight_gradient(const NodeHandle& stock);

}  // namespace ganloss
