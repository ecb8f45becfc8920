// A layer of a critic in a shared backward: a node of its forward into which parameters enter, the
// gradient delta that it had in the inner gradient, and how the main loss's comes from it.
#include "shared_layer.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include <limits>

#include "main_gradient.h"

namespace ganloss {

namespace generated = torch::autograd::generated;
using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::variable_list;

namespace {

// A power of two goes through a linear operation to the bit; kernels that add up in no fixed order
// need some room all the same.
double tolerance_of(at::ScalarType dtype) {
  if (dtype == at::kHalf) return 4.0 / 1024;
  if (dtype == at::kBFloat16) return 4.0 / 128;
  if (dtype == at::kFloat) return 64.0 * std::numeric_limits<float>::epsilon();
  return 64.0 * std::numeric_limits<double>::epsilon();
}

at::Tensor compared(const at::Tensor& delta, const at::Tensor& once, const at::Tensor& factors) {
  const at::Tensor expected = scaled(once, per_row(factors, once));
  const at::Tensor size = expected.abs().amax(), off = (delta - expected).abs().amax();
  const at::Tensor is_equal = off <= size * tolerance_of(once.scalar_type());
  const at::Tensor is_nonzero = once.reshape({factors.size(0), -1}).ne(0).any(1);  // [B]
  return at::stack({is_equal.to(at::kFloat), is_nonzero.to(at::kFloat).mean(),
                    at::isfinite(size + off).to(at::kFloat)});
}

template <typename NodeType>
const NodeType* as(const NodeHandle& node) {
  return dynamic_cast<const NodeType*>(node.get());
}

// The edge on which a weight enters that can be merged, and that on which the samples do.
struct WeightEdges {
  uint32_t weight = 0, samples = 0;
};

bool has_weight(const NodeHandle& node, WeightEdges& edges) {
  if (as<generated::ConvolutionBackward0>(node))
    edges = {1, 0};
  else if (as<generated::AddmmBackward0>(node))
    edges = {2, 1};
  else if (as<generated::MmBackward0>(node))
    edges = {1, 0};
  else
    return false;
  return true;
}

// Whether the edge leads to a bias, one number for each channel.
bool is_bias(const NodeHandle& node, uint32_t edge) {
  if (as<generated::ConvolutionBackward0>(node)) return edge == 2;
  const auto* linear = as<generated::AddmmBackward0>(node);
  if (!linear || edge != 0 || !linear->beta.equal(1)) return false;
  const Edge& bias = node->next_edge(edge);
  const auto shape = bias.function->input_metadata(bias.input_nr).shape_as_dim_vector();
  const auto output = node->input_metadata(0).shape_as_dim_vector();
  return shape.size() == 1 && shape[0] == output[1];
}

}  // namespace

struct SharedLayer::Hook final : torch::autograd::FunctionPostHook {
  explicit Hook(SharedLayer* layer) : layer(layer) {}
  variable_list operator()(const variable_list& outputs, const variable_list& inputs) override {
    layer->see(inputs, outputs);
    return outputs;
  }
  SharedLayer* layer;
};

SharedLayer::SharedLayer(NodeHandle node, std::vector<uint32_t> edges)
    : node_(std::move(node)), edges_(std::move(edges)) {}

void SharedLayer::note(const at::Tensor& factors) {
  factors_ = factors;
  hook_ = node_->add_post_hook(std::make_unique<Hook>(this));
}

void SharedLayer::stop() {
  if (hook_) node_->del_post_hook(hook_);
  hook_ = 0;
}

void SharedLayer::see(const variable_list& incoming, const variable_list& outgoing) {
  if (!factors_.defined()) {
    deltas_ = incoming;
    grad_inputs_ = outgoing;
    return;
  }
  for (size_t k = 0; k < deltas_.size(); ++k)
    if (deltas_[k].defined() && incoming[k].defined()) {
      const at::Tensor found = compared(incoming[k], deltas_[k].detach(), factors_);
      comparison_ = comparison_.defined() ? at::minimum(comparison_, found) : found;
    }
}

at::Tensor SharedLayer::comparison() const {
  return comparison_.defined() ? comparison_ : at::zeros({3}, factors_.options().dtype(at::kFloat));
}

// Null where stock autograd took another way than the usual one through the layer.
NodeHandle SharedLayer::merged(const NodeHandle& stock, const at::Tensor& phi_like) const {
  if (as<generated::ConvolutionBackward0>(node_))
    return as<generated::ConvolutionBackwardBackward0>(stock) ? merged_convolution(stock, phi_like)
                                                              : NodeHandle();
  return as<generated::MmBackward0>(stock) ? merged_linear(stock, node_, phi_like) : NodeHandle();
}

LayerNodes SharedLayer::nodes(const at::Tensor& phi_like) const {
  LayerNodes result;
  WeightEdges at;
  const bool can_merge = has_weight(node_, at);
  std::vector<uint32_t> others;
  for (const uint32_t edge : edges_) {
    if (can_merge && edge == at.weight && grad_inputs_[at.samples].defined()) {
      result.stock = grad_inputs_[at.samples].grad_fn();
      if (result.stock) result.merged = merged(result.stock, phi_like);
      if (result.merged) continue;
    }
    if (is_bias(node_, edge))
      result.scaled.push_back(scaled_bias(deltas_[0], node_->next_edge(edge), phi_like));
    else
      others.push_back(edge);
  }
  if (!others.empty()) result.scaled.push_back(replayed(node_, others, deltas_, phi_like));
  return result;
}

}  // namespace ganloss
