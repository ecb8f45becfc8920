// Which kernel computes the weight gradient of a convolution sooner; see kernel_choice.cpp.
#pragma once

#include "stand_in.h"

namespace ganloss {

// Whether the kernel of an ordinary backward is the faster one for `stock`, a
// ConvolutionBackwardBackward0 whose weight needs a gradient, or stock's own way is: decided by
// shapes, dtype and device alone, so that the same step takes the same kernels in every run.
bool backward_kernel_is_faster(const torch::autograd::Node& stock);

}  // namespace ganloss
