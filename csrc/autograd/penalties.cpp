// The autograd nodes of norm_penalty, interpolate and perturb.
#include <ATen/ScalarOps.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "nodes.h"

namespace ganloss {

namespace {

// ---- norm_penalty -------------------------------------------------------------------

struct NormPenaltyBackwardNode : torch::autograd::TraceableFunction {
  SavedVariable grad_penalty, gradient, norms;
  int64_t mode;
  double target, scale;

  variable_list apply(variable_list&& directions) override {
    if (!directions[0].defined()) return variable_list(2);
    const std::lock_guard<std::mutex> lock(mutex_);
    auto [first, second] = norm_penalty_double_backward(
        directions[0], grad_penalty.unpack(), gradient.unpack(), norms.unpack(), mode, target,
        scale);
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
    return {norm_penalty_backward(incoming[0], gradient.unpack(), norms.unpack(), mode,
                                           target, scale)};
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    gradient.reset_data();
    norms.reset_data();
  }
  std::string name() const override { return "NormPenaltyBackward0"; }
};

std::tuple<at::Tensor, at::Tensor> norm_penalty_autograd(const at::Tensor& gradient,
                                                                  int64_t mode, double target,
                                                                  double scale) {
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
                                                   const at::Tensor& gradient,
                                                   const at::Tensor& norms, int64_t mode,
                                                   double target, double scale) {
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
  at::Tensor result = run_below_autograd([&] {
    return norm_penalty_backward(grad_penalty, gradient, norms, mode, target, scale);
  });
  if (node) torch::autograd::set_history(result, node);
  return result;
}

// ---- interpolate -----------------------------------------------------------------------------

struct InterpolateNode : torch::autograd::TraceableFunction {
  SavedVariable real, fake, alpha;
  at::ScalarType image_dtype, alpha_dtype;

  // alpha as it broadcasts against the samples: [B] becomes [B, 1, ...].
  static at::Tensor broadcastable(const at::Tensor& alpha, int64_t dim) {
    at::Tensor shaped = alpha;
    if (alpha.dim() == 1)
      while (shaped.dim() < dim) shaped = shaped.unsqueeze(-1);
    return shaped;
  }

  variable_list apply(variable_list&& incoming) override {
    variable_list gradients(3);
    const at::Tensor& g = incoming[0];
    if (!g.defined()) return gradients;
    const std::lock_guard<std::mutex> lock(mutex_);
    const at::Tensor a = alpha.unpack(), weight = broadcastable(a, g.dim());
    if (task_should_compute_output(0)) gradients[0] = (g * weight).to(image_dtype);
    if (task_should_compute_output(1)) gradients[1] = (g * (1 - weight)).to(image_dtype);
    if (task_should_compute_output(2)) {
      const at::ScalarType compute = image_dtype == at::kDouble ? at::kDouble : at::kFloat;
      at::Tensor per_element =
          g.to(compute) * (real.unpack().to(compute) - fake.unpack().to(compute));
      gradients[2] = per_element.sum_to_size(weight.sizes()).view_as(a).to(alpha_dtype);
    }
    return gradients;
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    real.reset_data();
    fake.reset_data();
    alpha.reset_data();
  }
  std::string name() const override { return "InterpolateBackward0"; }
};

at::Tensor interpolate_autograd(const at::Tensor& real, const at::Tensor& fake,
                                const at::Tensor& alpha) {
  refuse_forward_mode("interpolate", {real, fake, alpha});
  auto node = node_for<InterpolateNode>(real, fake, alpha);
  if (node) {
    if (torch::autograd::compute_requires_grad(alpha)) {
      node->real = SavedVariable(real, false);
      node->fake = SavedVariable(fake, false);
    }
    node->alpha = SavedVariable(alpha, false);
    node->image_dtype = real.scalar_type();
    node->alpha_dtype = alpha.scalar_type();
  }
  at::Tensor result = run_below_autograd([&] { return interpolate(real, fake, alpha); });
  if (node) torch::autograd::set_history(result, node);
  return result;
}

// ---- perturb ---------------------------------------------------------------------------------

// The noise does not depend on the input.
struct PerturbNode : torch::autograd::TraceableFunction {
  variable_list apply(variable_list&& incoming) override { return std::move(incoming); }
  std::string name() const override { return "PerturbBackward0"; }
};

at::Tensor perturb_autograd(const at::Tensor& inputs, double sigma, const at::Tensor& seed) {
  refuse_forward_mode("perturb", inputs);
  auto node = node_for<PerturbNode>(inputs);
  at::Tensor result = run_below_autograd([&] { return perturb(inputs, sigma, seed); });
  if (node) torch::autograd::set_history(result, node);
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(ganloss_fast, Autograd, m) {
  m.impl("interpolate", &interpolate_autograd);
  m.impl("perturb", &perturb_autograd);
  m.impl("norm_penalty", &norm_penalty_autograd);
  m.impl("norm_penalty_backward", &norm_penalty_backward_autograd);
  m.impl("norm_penalty_double_backward",
         torch::autograd::autogradNotImplementedFallback());
}

}  // namespace ganloss
