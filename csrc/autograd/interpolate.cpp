// The autograd node of interpolate.
#include <ATen/ScalarOps.h>
#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include "nodes.h"

namespace ganloss {

namespace {

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

}  // namespace

TORCH_LIBRARY_IMPL(ganloss_fast, Autograd, m) {
  m.impl("interpolate", &interpolate_autograd);
}

}  // namespace ganloss
