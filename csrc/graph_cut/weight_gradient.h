// A node that stands in for ConvolutionBackwardBackward0; see weight_gradient.cpp.
#pragma once

#include <torch/csrc/autograd/edge.h>

#include <string>

namespace ganloss {

inline constexpr const char* kConvolutionSecondOrder = "ConvolutionBackwardBackward0";
inline constexpr const char* kFastConvolutionSecondOrder = "GanlossConvolutionBackwardBackward0";

// A node that sends along the same edges what `stock`, a ConvolutionBackwardBackward0, would send,
// equal to rounding. Null if the weight gets no gradient, so that there is nothing to gain.
decltype(torch::autograd::Edge::function) fast_weight_gradient(
    const decltype(torch::autograd::Edge::function)& stock);

}  // namespace ganloss
