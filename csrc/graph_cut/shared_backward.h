// One backward for a main loss of a critic's logits and a penalty on their gradient; see
// shared_backward.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "sample_rows.h"
#include "shared_layer.h"

namespace ganloss {

class SharedBackward {
 public:
  // logits: one for each sample, with the graph of the critic's forward. inputs: the samples.
  SharedBackward(at::Tensor logits, std::vector<at::Tensor> inputs);

  // Why it cannot be; empty while nothing speaks against it.
  const std::string& refusal() const { return refusal_; }
  // Of the operations, their shapes and the critic's leaves: alike from step to step.
  uint64_t fingerprint() const { return fingerprint_; }
  // Whether there are operations of which only a look at the gradients can tell what they do.
  bool has_custom_functions() const { return has_custom_functions_; }
  // Each must be 0, 1, 2, ..., or samples are mixed; see sample_rows.h.
  const std::vector<at::Tensor>& row_indices() const { return row_indices_; }

  // The inner gradient, one for each input, with its graph: of the logits times `directions`.
  std::vector<at::Tensor> gradients(const at::Tensor& directions);
  // The same once more, of logits that are multiplied by `factors` [B], powers of two, too. What
  // became of them in every layer: [layers, 3]; see shared_layer.h.
  at::Tensor compare(const at::Tensor& directions, const at::Tensor& factors);
  // The logits and the inner gradients once more, on a graph of their own. `inverse`, 0-d: one over
  // what the logits' gradients were in the inner gradient, if not 1. Nothing where refusal() says
  // why.
  std::optional<std::vector<at::Tensor>> join(const std::vector<at::Tensor>& gradients,
                                              const std::optional<at::Tensor>& inverse);

 private:
  struct Plan;

  void refuse(const std::string& reason);
  void refuse_mixing(const torch::autograd::Node& node, Rows rows);
  void walk_forward();
  void visit(const NodeHandle& node);
  bool is_input(const torch::autograd::Edge& edge) const;
  bool is_dependent(const torch::autograd::Edge& edge) const;
  Plan planned(const std::vector<torch::autograd::Edge>& roots);
  void mark_zeroed(Plan& plan) const;
  std::vector<at::Tensor> run(const at::Tensor& directions, bool create_graph,
                              const at::Tensor& factors);

  at::Tensor logits_;
  std::vector<at::Tensor> inputs_;
  std::vector<torch::autograd::Edge> input_edges_;
  int64_t samples_;
  std::string refusal_;
  uint64_t fingerprint_ = 0;
  bool has_custom_functions_ = false;
  std::vector<at::Tensor> row_indices_;
  // The forward's graph: which nodes depend on the samples.
  std::unordered_map<torch::autograd::Node*, bool> forward_;
  std::vector<std::unique_ptr<SharedLayer>> layers_;
};

}  // namespace ganloss
