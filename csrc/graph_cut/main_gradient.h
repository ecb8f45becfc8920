// The gradients of a main loss, computed from those of a penalty's inner gradient; see
// main_gradient.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include "stand_in.h"

namespace ganloss {

// phi, one factor for each sample, as a factor of every row of a tensor [N, ...].
at::Tensor per_row(const at::Tensor& phi, const at::Tensor& like);
// tensor * factors in the tensor's dtype; the product itself is taken in the wider one.
at::Tensor scaled(const at::Tensor& tensor, const at::Tensor& factors);

// Nodes with an input for phi, of which `phi_like` is an example. With the other inputs of `stock`
// before it, they stand in for a node of the inner gradient's graph:
NodeHandle merged_convolution(const NodeHandle& stock, const at::Tensor& phi_like);
NodeHandle merged_linear(const NodeHandle& stock, const NodeHandle& forward,
                         const at::Tensor& phi_like);
// With phi alone, they send the main loss's gradient to a bias, or to what `forward` sends along
// these of its edges when it gets the gradients `deltas`, scaled by phi:
NodeHandle scaled_bias(const at::Tensor& delta, const torch::autograd::Edge& bias,
                       const at::Tensor& phi_like);
NodeHandle replayed(const NodeHandle& forward, const std::vector<uint32_t>& edges,
                    torch::autograd::variable_list deltas, const at::Tensor& phi_like);

// A derivative of these gradients would lack what depends on the inner gradient.
void refuse_third_order();

}  // namespace ganloss
