// A layer of a critic in a shared backward; see shared_layer.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <vector>

#include "stand_in.h"

namespace ganloss {

// The nodes that send the main loss's gradient to a layer's parameters; phi is their last input.
struct LayerNodes {
  NodeHandle stock, merged;  // a node of the inner gradient's graph, and what stands in for it
  std::vector<NodeHandle> scaled;  // for what is not merged
};

class SharedLayer {
 public:
  // A node of the forward, and which of its edges lead to parameters.
  SharedLayer(NodeHandle node, std::vector<uint32_t> edges);
  ~SharedLayer() { stop(); }
  SharedLayer(const SharedLayer&) = delete;

  // Notes what goes through the node in a backward, until stop(). With `factors` [B], compares it
  // with what was noted before.
  void note(const at::Tensor& factors = {});
  void stop();
  // [3], float: whether every row was multiplied by its sample's factor, the share of samples with
  // a gradient that is not zero, whether all are finite.
  at::Tensor comparison() const;

  LayerNodes nodes(const at::Tensor& phi_like) const;
  const torch::autograd::Node* node() const { return node_.get(); }

 private:
  struct Hook;

  void see(const torch::autograd::variable_list& incoming,
           const torch::autograd::variable_list& outgoing);
  NodeHandle merged(const NodeHandle& stock, const at::Tensor& phi_like) const;

  NodeHandle node_;
  std::vector<uint32_t> edges_;
  uintptr_t hook_ = 0;
  at::Tensor factors_, comparison_;
  torch::autograd::variable_list deltas_, grad_inputs_;
};

}  // namespace ganloss
