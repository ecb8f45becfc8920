// A node in the place of one of stock autograd's.
#pragma once

#include <torch/csrc/autograd/function.h>

namespace ganloss {

using NodeHandle = decltype(torch::autograd::Edge::function);

// Gets the same gradients in, has the same edges, and computes from the same saved tensors.
struct StandIn : torch::autograd::Node {
  void stand_in_for(const NodeHandle& stock_node) {
    stock = stock_node;
    set_sequence_nr(stock->sequence_nr());  // its turn in the backward
    for (uint32_t k = 0; k < stock->num_inputs(); ++k)
      input_metadata_.emplace_back(stock->input_metadata(k));
    set_next_edges(torch::autograd::edge_list(stock->next_edges()));
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    stock.reset();
  }

  NodeHandle stock;  // holds the saved tensors; never run
};

}  // namespace ganloss
