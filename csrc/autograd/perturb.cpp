// The autograd node of perturb.
#include <torch/library.h>

#include "nodes.h"

namespace ganloss {

namespace {

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
  m.impl("perturb", &perturb_autograd);
}

}  // namespace ganloss
