// The autograd nodes of norm_penalty.
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "nodes.h"

namespace ganloss {

namespace {

struct NormPenaltyBackwardNode : torch::autograd::TraceableFunction {
  SavedVariable grad_penalty, gradient, norms;
  int64_t mode;
  double target, scale;

  variable_list apply(variable_list&& directions) override {
    if (!directions[0].defined()) return variable_list(2);
    const std::lock_guard<std::mutex> lock(mutex_);
    auto [first, second] =
        norm_penalty_double_backward(directions[0], grad_penalty.unpack(), gradient.unpack(),
                                     norms.unpack(), mode, target, scale);
    return {first, second};
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    grad_penalty.reset_data();
    gradient.reset_data();
    norms.reset_data();
  }
  std::string name() const override { return "NormPenaltyBackwardBackward0"; }
};

struct NormPenaltyNode : torch::autograd::TraceableFunction {
  SavedVariable gradient, norms;
  int64_t mode;
  double target, scale;

  variable_list apply(variable_list&& incoming) override {
    if (!incoming[0].defined()) return variable_list(1);
    const std::lock_guard<std::mutex> lock(mutex_);
    return {
        norm_penalty_backward(incoming[0], gradient.unpack(), norms.unpack(), mode, target, scale)};
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    gradient.reset_data();
    norms.reset_data();
  }
  std::string name() const override { return "NormPenaltyBackward0"; }
};

std::tuple<at::Tensor, at::Tensor> norm_penalty_autograd(const at::Tensor& gradient, int64_t mode,
                                                         double target, double scale) {
  refuse_forward_mode("norm_penalty", gradient);
  auto node = node_for<NormPenaltyNode>(gradient);
  auto [penalty, norms] =
      run_below_autograd([&] { return norm_penalty(gradient, mode, target, scale); });
  if (node) {
    torch::autograd::set_history(penalty, node);
    node->gradient = SavedVariable(gradient, false);
    node->norms = SavedVariable(norms, false);  // a statistic: it has no history of its own
    node->mode = mode;
    node->target = target;
    node->scale = scale;
  }
  return {penalty, norms};
}

at::Tensor norm_penalty_backward_autograd(const at::Tensor& grad_penalty,
                                          const at::Tensor& gradient, const at::Tensor& norms,
                                          int64_t mode, double target, double scale) {
  refuse_forward_mode("norm_penalty_backward", {grad_penalty, gradient});
  auto node = node_for<NormPenaltyBackwardNode>(grad_penalty, gradient);
  if (node) {
    node->grad_penalty = SavedVariable(grad_penalty, false);
    node->gradient = SavedVariable(gradient, false);
    node->norms = SavedVariable(norms, false);
    node->mode = mode;
    node->target = target;
    node->scale = scale;
  }
  at::Tensor result = run_below_autograd(
      [&] { return norm_penalty_backward(grad_penalty, gradient, norms, mode, target, scale); });
  if (node) torch::autograd::set_history(result, node);
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(ganloss_fast, Autograd, m) {
  m.impl("norm_penalty", &norm_penalty_autograd);
  m.impl("norm_penalty_backward", &norm_penalty_backward_autograd);
  // Third order: raise where a gradient is asked for, instead of leaving it out.
  m.impl("norm_penalty_double_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace ganloss
