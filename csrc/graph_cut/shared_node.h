// The node over logits and inner gradients that share a backward; see shared_node.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <vector>

namespace ganloss {

struct PairEdges {
  // One that gets phi, or a gradient scaled by it. Stock autograd may send a zero there when the
  // penalty alone is differentiated.
  struct Scaled {
    torch::autograd::Edge to;
    bool gets_zero;
  };
  torch::autograd::edge_list gradients;  // to the inner gradients' graph, one for each input
  std::vector<Scaled> inputs, layers;
};

// The same logits and inner gradients, with this node for their history. `inverse`, 0-d: one over
// what the logits' gradients were in the inner gradient; undefined for 1.
std::vector<at::Tensor> pair_on_graph(const at::Tensor& logits,
                                      const std::vector<at::Tensor>& gradients, PairEdges edges,
                                      const at::Tensor& phi_like, const at::Tensor& inverse);

}  // namespace ganloss
