// A node that stands in for ConvolutionBackwardBackward0; see weight_gradient.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include "stand_in.h"

namespace torch::autograd::generated {
struct ConvolutionBackwardBackward0;
}

namespace ganloss {

inline constexpr const char* kFastConvolutionSecondOrder = "GanlossConvolutionBackwardBackward0";

// The convolution that the node is about, of an image or of the direction of one.
at::Tensor convolved(const torch::autograd::generated::ConvolutionBackwardBackward0& node,
                     const at::Tensor& image, const at::Tensor& weight);
// The gradient that its weight gets from an image and an output gradient.
at::Tensor weight_gradient(const torch::autograd::generated::ConvolutionBackwardBackward0& node,
                           const at::Tensor& image, const at::Tensor& grad_output,
                           const at::Tensor& weight);

// A node that sends along the same edges what `stock`, a ConvolutionBackwardBackward0, would send,
// equal to rounding. Null if the weight gets no gradient.
NodeHandle fast_weight_gradient(const NodeHandle& stock);

}  // namespace ganloss
