// Removing the edges of a double-backward graph that carry exact zeros; see graph_cut.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace ganloss {

// A row of the allow-list that holds in this torch (ganloss_fast/graph_cut/rows.py).
struct CutRow {
  int64_t edge;        // the edge whose gradient is an exact zero
  bool real_only;      // only for real dtypes
  int64_t idle_input;  // only while this incoming gradient is undefined; -1: always
};

// Where rows are looked up by node name. It is asked once for each type of node; a node without
// a row is left alone: right, only slower.
using RowLookup = std::function<std::optional<CutRow>(const std::string& node)>;
void set_row_lookup(RowLookup lookup);

// The edge on which a node sends exact zeros, or -1: of the graph of an inner gradient that was
// taken of inputs alone.
int64_t zero_edge(const torch::autograd::Node& node);

// Which tensors get an explicit zero where the cut leaves them without a gradient.
enum class ZeroGrads : int {
  kStock = 0,  // those to which stock autograd gives an exact zero
  kAll = 1,    // those, and every tensor of `parameters`
  kNone = 2,   // none
};

struct CutResult {
  std::vector<at::Tensor> grads;  // the same values; their history adds the zeros
  int64_t cut;                    // edges cut in the graph, by this call or an earlier one
  int64_t nodes;                  // nodes visited
  bool compiled;                  // there is a node of torch.compile, which has no second order
};

// grads: gradients taken with create_graph. hidden: leaves that nobody can see, and that need no
// zeros, such as a detached copy of the samples. fast_weights: see weight_gradient.h.
CutResult cut_second_order(const std::vector<at::Tensor>& grads, int64_t zero_grads,
                           const std::vector<at::Tensor>& parameters,
                           const std::vector<at::Tensor>& hidden, bool fast_weights);

}  // namespace ganloss
