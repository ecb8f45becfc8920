// The autograd nodes of multi_tensor_loss.
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "../cpu/gradients_ahead.h"
#include "nodes.h"

namespace ganloss {

namespace {

// What a node keeps of its segments.
struct SavedSegments {
  std::vector<SavedVariable> a, b, weights;
  std::vector<int64_t> operands, terms;
  std::vector<double> parameters, scale;

  void set(GANLOSS_SEGMENT_PARAMETERS) {
    this->a = save(a);
    this->b = save(b);
    this->weights = save(weights);
    this->operands = operands.vec();
    this->terms = terms.vec();
    this->parameters = parameters.vec();
    this->scale = scale.vec();
  }
  void release_variables() {
    release(a);
    release(b);
    release(weights);
  }
  // Raises where a tensor was changed in place since, or has been released.
  void check_versions() const {
    unpack(a);
    unpack(b);
    unpack(weights);
  }
  // Calls op(a, b, weights, operands, terms, parameters, scale).
  template <typename Op>
  auto apply_to(Op&& op) const {
    const Tensors a_list = unpack(a), b_list = unpack(b), weight_list = unpack(weights);
    return op(a_list, b_list, weight_list, operands, terms, parameters, scale);
  }
};

void refuse_weight_gradient(at::TensorList weights) {
  for (const at::Tensor& weight : weights)
    TORCH_CHECK_NOT_IMPLEMENTED(
        !(at::GradMode::is_enabled() && weight.requires_grad()),
        "weights: no gradient flows to the weights of a segment, but one of them requires grad. "
        "Detach it, or multiply the logits yourself.");
}

// The inputs of a node that require grad.
std::vector<int64_t> valid_edges(const torch::autograd::Node& node) {
  std::vector<int64_t> indices;
  for (uint32_t k = 0; k < node.num_outputs(); ++k)
    if (node.next_edge(k).is_valid()) indices.push_back(k);
  return indices;
}

struct MultiTensorLossBackwardNode : torch::autograd::TraceableFunction {
  SavedSegments segments;
  SavedVariable grad_total, grad_values;
  std::vector<int64_t> wanted;

  // Edges: grad_total, grad_values, then a ++ b.
  variable_list apply(variable_list&& directions) override {
    variable_list gradients(num_outputs());
    bool any = false;
    for (const at::Tensor& direction : directions) any |= direction.defined();
    if (!any) return gradients;
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<int64_t> wanted_second;
    for (size_t k = 2; k < gradients.size(); ++k)
      if (task_should_compute_output(k)) wanted_second.push_back(static_cast<int64_t>(k) - 2);

    const at::Tensor total = grad_total.unpack(), values = grad_values.unpack();
    auto [grad_grad_total, grad_grad_values,
          second] = segments.apply_to([&](at::TensorList a, at::TensorList b, auto&&... rest) {
      for (size_t k = 0; k < wanted.size(); ++k) {
        const auto index = static_cast<size_t>(wanted[k]);
        if (!directions[k].defined())
          directions[k] = at::zeros_like(index < a.size() ? a[index] : b[index - a.size()]);
      }
      return multi_tensor_loss_double_backward(directions, if_defined(total), if_defined(values), a,
                                               b, rest..., wanted, wanted_second);
    });
    if (total.defined()) gradients[0] = grad_grad_total;
    if (values.defined()) gradients[1] = grad_grad_values;
    for (size_t k = 0; k < wanted_second.size(); ++k) gradients[2 + wanted_second[k]] = second[k];
    return gradients;
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    segments.release_variables();
    grad_total.reset_data();
    grad_values.reset_data();
  }
  std::string name() const override { return "MultiTensorLossBackwardBackward0"; }
};

struct MultiTensorLossNode : torch::autograd::TraceableFunction {
  SavedSegments segments;
  cpu::GradientsAhead ahead;  // on the CPU, what the forward kept for the first order

  // Edges: a ++ b. Incoming: total, values; the statistics are not differentiable.
  variable_list apply(variable_list&& incoming) override {
    variable_list gradients(num_outputs());
    if (!incoming[0].defined() && !incoming[1].defined()) return gradients;
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<int64_t> wanted;
    for (size_t k = 0; k < gradients.size(); ++k)
      if (task_should_compute_output(k)) wanted.push_back(static_cast<int64_t>(k));
    if (!ahead.is_empty()) wanted = take_ahead(incoming, std::move(wanted), gradients);
    if (wanted.empty()) return gradients;
    const Tensors computed = segments.apply_to([&](auto&&... arguments) {
      return multi_tensor_loss_backward(if_defined(incoming[0]), if_defined(incoming[1]),
                                        arguments..., wanted);
    });
    for (size_t k = 0; k < wanted.size(); ++k) gradients[wanted[k]] = computed[k];
    return gradients;
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    segments.release_variables();
    ahead.clear();
  }
  std::string name() const override { return "MultiTensorLossBackward0"; }

 private:
  // Fills the gradients that need no second pass over the operands; returns the others. One that
  // is to be differentiated again starts from the operands.
  std::vector<int64_t> take_ahead(const variable_list& incoming, std::vector<int64_t> wanted,
                                  variable_list& gradients) {
    if (at::GradMode::is_enabled() || !cpu::is_plain(incoming[0]) || !cpu::is_plain(incoming[1])) {
      ahead.clear();
      return wanted;
    }
    const cpu::Incoming factors(incoming[0], incoming[1]);
    if (!ahead.is_expected(factors)) segments.check_versions();
    return ahead.take(factors, wanted, gradients);
  }
};

std::tuple<at::Tensor, at::Tensor, at::Tensor> multi_tensor_loss_autograd(
    GANLOSS_SEGMENT_PARAMETERS, bool with_statistics) {
  refuse_forward_mode("multi_tensor_loss", a);
  refuse_forward_mode("multi_tensor_loss", b);
  refuse_weight_gradient(weights);
  auto node = node_for<MultiTensorLossNode>(a, b);
  if (node) node->segments.set(GANLOSS_SEGMENT_ARGUMENTS);
  const bool one_pass = node && cpu::are_plain(a) && cpu::are_plain(b) && cpu::are_plain(weights);
  auto outputs = run_below_autograd([&] {
    if (!one_pass) return multi_tensor_loss(GANLOSS_SEGMENT_ARGUMENTS, with_statistics);
    return cpu::multi_tensor_loss_ahead(GANLOSS_SEGMENT_ARGUMENTS, with_statistics, &node->ahead,
                                        valid_edges(*node));
  });
  if (node) {
    torch::autograd::set_history(std::get<0>(outputs), node);
    torch::autograd::set_history(std::get<1>(outputs), node);
  }
  return outputs;
}

Tensors multi_tensor_loss_backward_autograd(const std::optional<at::Tensor>& grad_total,
                                            const std::optional<at::Tensor>& grad_values,
                                            GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted) {
  const at::Tensor total = or_undefined(grad_total), values = or_undefined(grad_values);
  refuse_forward_mode("multi_tensor_loss_backward", {total, values});
  refuse_forward_mode("multi_tensor_loss_backward", a);
  refuse_forward_mode("multi_tensor_loss_backward", b);
  auto node = node_for<MultiTensorLossBackwardNode>(total, values, a, b);
  if (node) {
    node->segments.set(GANLOSS_SEGMENT_ARGUMENTS);
    node->grad_total = SavedVariable(total, false);
    node->grad_values = SavedVariable(values, false);
    node->wanted = wanted.vec();
  }
  Tensors gradients = run_below_autograd([&] {
    return multi_tensor_loss_backward(grad_total, grad_values, GANLOSS_SEGMENT_ARGUMENTS, wanted);
  });
  if (node) torch::autograd::set_history(gradients, node);
  return gradients;
}

}  // namespace

TORCH_LIBRARY_IMPL(ganloss_fast, Autograd, m) {
  m.impl("multi_tensor_loss", &multi_tensor_loss_autograd);
  m.impl("multi_tensor_loss_backward", &multi_tensor_loss_backward_autograd);
  // Third order: raise where a gradient is asked for, instead of leaving it out.
  m.impl("multi_tensor_loss_double_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace ganloss
