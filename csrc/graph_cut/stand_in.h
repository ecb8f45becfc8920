// Nodes in the place of stock autograd's.
#pragma once

#include <torch/csrc/autograd/function.h>

#include <mutex>

namespace ganloss {

using NodeHandle = decltype(torch::autograd::Edge::function);

inline constexpr const char* kConvolutionSecondOrder = "ConvolutionBackwardBackward0";

// The edges of a convolution's double backward.
enum ConvolutionEdge { kGradOutput, kInput, kWeight };

// Takes another's edges, its turn in the backward, and the gradients that may come in.
struct ReplacingNode : torch::autograd::Node {
  void take_the_place_of(const torch::autograd::Node& other) {
    set_sequence_nr(other.sequence_nr());
    for (uint32_t k = 0; k < other.num_inputs(); ++k)
      input_metadata_.emplace_back(other.input_metadata(k));
    set_next_edges(torch::autograd::edge_list(other.next_edges()));
  }
};

// Computes from the saved tensors of the node that it replaces.
struct StandIn : ReplacingNode {
  void stand_in_for(const NodeHandle& stock_node) {
    stock = stock_node;
    take_the_place_of(*stock);
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    stock.reset();
  }

  NodeHandle stock;  // holds the saved tensors; never run
};

}  // namespace ganloss
