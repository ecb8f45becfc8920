// The node over logits and inner gradients that share a backward: it hands the gradients' gradients
// on, and phi, the logits' gradient, to whatever computes the main loss's gradients from it.
#include "shared_node.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>

#include <mutex>

#include "../autograd/node.h"
#include "main_gradient.h"

namespace ganloss {

using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;

namespace {

struct SharedBackwardNode final : Node {
  size_t inputs = 0;  // edges: the gradients', the inputs', then phi to every layer
  variable_list gradients;
  at::TensorOptions phi_options;
  at::Tensor inverse;  // 0-d; undefined for 1
  // Edges behind the gradients' to which stock autograd sends a zero when the penalty alone is
  // differentiated.
  std::vector<bool> gets_zero;

  variable_list apply(variable_list&& grads) override {
    refuse_third_order();
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!gradients.empty(), torch::autograd::ERR_BACKWARD_TWICE);
    variable_list out(num_outputs());
    bool any = false;
    for (size_t k = 0; k < inputs; ++k) {
      any |= grads[k + 1].defined();
      out[k] = std::move(grads[k + 1]);
    }
    at::Tensor phi, zero;
    if (grads[0].defined())
      phi = phi_of(grads[0]);
    else if (any)
      zero = at::zeros({gradients[0].size(0)}, phi_options);
    for (size_t k = inputs; k < num_outputs(); ++k) {
      const at::Tensor& factors = phi.defined() || !gets_zero[k - inputs] ? phi : zero;
      if (!factors.defined() || !task_should_compute_output(k)) continue;
      if (k >= 2 * inputs)
        out[k] = factors;
      else
        out[k] = scaled(gradients[k - inputs], per_row(factors, gradients[k - inputs]));
    }
    return out;
  }
  at::Tensor phi_of(const at::Tensor& grad_logits) const {
    const at::Tensor phi = grad_logits.reshape({-1}).to(phi_options).contiguous();
    return inverse.defined() ? phi.mul(inverse) : phi;
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    gradients.clear();
    inverse.reset();
  }
  std::string name() const override { return "GanlossSharedBackward0"; }
};

// The same data under a node, with the same version counter.
at::Tensor put_under(const NodePointer<SharedBackwardNode>& node, const at::Tensor& tensor) {
  const auto* impl = tensor.unsafeGetTensorImpl();
  at::Tensor alias(impl->shallow_copy_and_detach(impl->version_counter(),
                                                 /*allow_tensor_metadata_change=*/true));
  torch::autograd::set_history(alias, node);
  return alias;
}

}  // namespace

std::vector<at::Tensor> pair_on_graph(const at::Tensor& logits,
                                      const std::vector<at::Tensor>& gradients, PairEdges edges,
                                      const at::Tensor& phi_like, const at::Tensor& inverse) {
  auto node = make_node<SharedBackwardNode>();
  node->inputs = gradients.size();
  node->phi_options = phi_like.options();
  node->inverse = inverse;
  edge_list all = std::move(edges.gradients);
  for (std::vector<PairEdges::Scaled>* scaled : {&edges.inputs, &edges.layers})
    for (PairEdges::Scaled& edge : *scaled) {
      all.push_back(std::move(edge.to));
      node->gets_zero.push_back(edge.gets_zero);
    }
  node->set_next_edges(std::move(all));
  std::vector<at::Tensor> pair{put_under(node, logits)};
  for (const at::Tensor& gradient : gradients) {
    node->gradients.push_back(gradient.detach());
    pair.push_back(put_under(node, gradient));
  }
  return pair;
}

}  // namespace ganloss
