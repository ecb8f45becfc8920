// The base of nodes that stand in for another one in an autograd graph.
#pragma once

#include <torch/csrc/autograd/function.h>

namespace ganloss {

using NodeHandle = decltype(torch::autograd::Edge::function);

inline constexpr const char* kConvolutionSecondOrder = "ConvolutionBackwardBackward0";

// The edges of a convolution's double backward.
enum ConvolutionEdge { kGradOutput, kInput, kWeight };

class StandIn : public torch::autograd::Node {
 public:
  // Takes the other's edges, its turn in the backward, and the gradients that may come in.
  void take_the_place_of(const Node& stock) {
    set_sequence_nr(stock.sequence_nr());
    for (uint32_t k = 0; k < stock.num_inputs(); ++k)
      input_metadata_.emplace_back(stock.input_metadata(k));
    set_next_edges(torch::autograd::edge_list(stock.next_edges()));
  }
};

}  // namespace ganloss
