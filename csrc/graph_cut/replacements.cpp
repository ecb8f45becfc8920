// A convolution with a constant weight gets the node of constant_weight.cpp, in every mode of the
// cut; one with a weight to learn that of weight_gradient.cpp, in "fast" and where it is faster.
#include "replacements.h"

#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <typeinfo>

#include "constant_weight.h"
#include "hooks.h"
#include "kernel_choice.h"
#include "weight_gradient.h"

namespace ganloss {

using torch::autograd::Edge;
using torch::autograd::Node;

namespace {

StandInProof& stand_in_proof() {
  static auto* proof = new StandInProof();  // not destroyed: it may hold an object of Python
  return *proof;
}

bool is_convolution(const Node& node) {
  return typeid(node) == typeid(torch::autograd::generated::ConvolutionBackwardBackward0);
}

// Of an image without elements stock sends nothing on, not even zeros.
bool is_empty(const Node& node) {
  const auto shape = node.input_metadata(0).shape_as_dim_vector();
  return std::any_of(shape.begin(), shape.end(), [](const c10::SymInt& n) { return n == 0; });
}

}  // namespace

void set_stand_in_proof(StandInProof proof) {
  stand_in_proof() = std::move(proof);
}

bool Replacements::is_proven(const char* node) {
  const auto [entry, is_new] = proven_.try_emplace(node, false);
  if (is_new) entry->second = stand_in_proof() && stand_in_proof()(node);
  return entry->second;
}

NodeHandle Replacements::replacement_of(const NodeHandle& stock) {
  if (has_hook(*stock)) return {};  // which the node has to run for
  if (is_empty(*stock)) return {};
  if (NodeHandle node = without_weight_gradient(stock))
    return is_proven(kConstantConvolutionSecondOrder) ? node : NodeHandle();
  if (!fast_weights_ || !is_proven(kFastConvolutionSecondOrder)) return {};
  NodeHandle node = fast_weight_gradient(stock);
  return node && backward_kernel_is_faster(*stock) ? node : NodeHandle();
}

void Replacements::redirect(Edge& edge) {
  if (!edge.is_valid() || !is_convolution(*edge.function)) return;
  const auto [entry, is_new] = replacements_.try_emplace(edge.function);
  if (is_new) entry->second = replacement_of(edge.function);
  if (entry->second) edge.function = entry->second;
}

at::Tensor under_stand_in(const at::Tensor& gradient, const std::string& node) {
  const Edge edge = torch::autograd::impl::gradient_edge(gradient);
  if (!is_convolution(*edge.function)) return {};
  NodeHandle stand_in = node == kFastConvolutionSecondOrder
                            ? fast_weight_gradient(edge.function)
                            : without_weight_gradient(edge.function);
  if (!stand_in) return {};
  at::Tensor alias = gradient.variable_data();
  torch::autograd::impl::set_gradient_edge(alias, Edge(std::move(stand_in), edge.input_nr));
  return alias;
}

}  // namespace ganloss
