// Which nodes of a double-backward graph others stand in for; see replacements.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <unordered_map>

#include "stand_in.h"

namespace ganloss {

// Says of a node of ours, by its name, whether it proved equal to stock's in this torch
// (ganloss_fast/graph_cut/stand_ins.py). One that did not is not used.
using StandInProof = std::function<bool(const std::string& node)>;
void set_stand_in_proof(StandInProof proof);

// Points the edges that a walk meets at nodes that stand in for those of convolutions.
class Replacements {
 public:
  explicit Replacements(bool fast_weights) : fast_weights_(fast_weights) {}
  void redirect(torch::autograd::Edge& edge);

 private:
  NodeHandle replacement_of(const NodeHandle& stock);
  bool is_proven(const char* node);

  bool fast_weights_;
  std::unordered_map<NodeHandle, NodeHandle> replacements_;  // null: the node stays
  std::unordered_map<const char*, bool> proven_;
};

// A gradient under the node that stands in for its own, proven or not: for the proof. Undefined
// if there is none.
at::Tensor under_stand_in(const at::Tensor& gradient, const std::string& node);

}  // namespace ganloss
