// The Autograd key: one raw node for each op that is differentiable.
//
// The nodes are written as ATen's own generated code is. torch::autograd::Function would refuse
// torch.func, and a Python autograd.Function loses the second-order term in a compiled step.
//
//   multi_tensor_loss -> MultiTensorLossNode -> multi_tensor_loss_backward
//     -> MultiTensorLossBackwardNode -> multi_tensor_loss_double_backward (no further derivative)
//
// and the same for gradient_penalty_loss. interpolate and perturb are linear, so their backward is
// a few ATen ops and has every derivative that they have.
//
// No sizes and no data are read here: shapes may be symbolic.
#include <ATen/ScalarOps.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include "cpu/one_pass.h"
#include "node.h"
#include "ops.h"

namespace ganloss {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// ---- the ops through the dispatcher ----------------------------------------------------------

#define GANLOSS_DISPATCH(name)                                        \
  static auto op = c10::Dispatcher::singleton()                       \
                       .findSchemaOrThrow("ganloss_fast::" #name, "") \
                       .typed<decltype(name)>();                      \
  return op.call

std::tuple<at::Tensor, at::Tensor, at::Tensor> multi_tensor_loss(GANLOSS_SEGMENT_PARAMETERS,
                                                                 bool with_statistics) {
  GANLOSS_DISPATCH(multi_tensor_loss)(GANLOSS_SEGMENT_ARGUMENTS, with_statistics);
}
Tensors multi_tensor_loss_backward(const std::optional<at::Tensor>& grad_total,
                                   const std::optional<at::Tensor>& grad_values,
                                   GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted) {
  GANLOSS_DISPATCH(multi_tensor_loss_backward)
  (grad_total, grad_values, GANLOSS_SEGMENT_ARGUMENTS, wanted);
}
std::tuple<at::Tensor, at::Tensor, Tensors> multi_tensor_loss_double_backward(
    at::TensorList directions, const std::optional<at::Tensor>& grad_total,
    const std::optional<at::Tensor>& grad_values, GANLOSS_SEGMENT_PARAMETERS,
    at::IntArrayRef wanted, at::IntArrayRef wanted_second) {
  GANLOSS_DISPATCH(multi_tensor_loss_double_backward)
  (directions, grad_total, grad_values, GANLOSS_SEGMENT_ARGUMENTS, wanted, wanted_second);
}
at::Tensor interpolate(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha) {
  GANLOSS_DISPATCH(interpolate)(real, fake, alpha);
}
at::Tensor perturb(const at::Tensor& inputs, double sigma, const at::Tensor& seed) {
  GANLOSS_DISPATCH(perturb)(inputs, sigma, seed);
}
std::tuple<at::Tensor, at::Tensor> gradient_penalty_loss(const at::Tensor& gradient, int64_t mode,
                                                         double target, double scale) {
  GANLOSS_DISPATCH(gradient_penalty_loss)(gradient, mode, target, scale);
}
at::Tensor gradient_penalty_loss_backward(const at::Tensor& grad_penalty,
                                          const at::Tensor& gradient, const at::Tensor& norms,
                                          int64_t mode, double target, double scale) {
  GANLOSS_DISPATCH(gradient_penalty_loss_backward)
  (grad_penalty, gradient, norms, mode, target, scale);
}
std::tuple<at::Tensor, at::Tensor> gradient_penalty_loss_double_backward(
    const at::Tensor& direction, const at::Tensor& grad_penalty, const at::Tensor& gradient,
    const at::Tensor& norms, int64_t mode, double target, double scale) {
  GANLOSS_DISPATCH(gradient_penalty_loss_double_backward)
  (direction, grad_penalty, gradient, norms, mode, target, scale);
}

namespace {

// ---- making nodes ----------------------------------------------------------------------------

// A node for the inputs, or null where none of them requires grad.
template <typename Node, typename... Inputs>
NodePointer<Node> node_for(const Inputs&... inputs) {
  if (!torch::autograd::compute_requires_grad(inputs...)) return {};
  NodePointer<Node> node = make_node<Node>();
  node->set_next_edges(torch::autograd::collect_next_edges(inputs...));
  return node;
}

// Runs the op below autograd, where the backends are.
template <typename Op>
auto run_below_autograd(Op&& op) {
  at::AutoDispatchBelowADInplaceOrView guard;
  return op();
}

// Forward-mode AD would silently give 0 here.
void refuse_forward_mode(const char* op, at::TensorList tensors) {
  for (const at::Tensor& tensor : tensors)
    TORCH_CHECK_NOT_IMPLEMENTED(!tensor.defined() || !tensor._fw_grad(0).defined(),
                                "ganloss_fast::", op,
                                " has no forward-mode derivative (torch.func.jvp, dual "
                                "tensors). Use reverse mode, or ganloss_fast.reference.");
}

std::vector<SavedVariable> save(at::TensorList tensors) {
  std::vector<SavedVariable> saved;
  saved.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) saved.emplace_back(tensor, false);
  return saved;
}
Tensors unpack(const std::vector<SavedVariable>& saved) {
  Tensors tensors;
  tensors.reserve(saved.size());
  for (const SavedVariable& variable : saved) tensors.push_back(variable.unpack());
  return tensors;
}
void release(std::vector<SavedVariable>& saved) {
  for (SavedVariable& variable : saved) variable.reset_data();
}

std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}
at::Tensor or_undefined(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() ? *tensor : at::Tensor();
}

// ---- multi_tensor_loss -----------------------------------------------------------------------

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
  // On the CPU the forward may have written the gradients for an incoming gradient of 1. They
  // serve the first backward that starts at the loss itself; any other, and every one that is
  // to be differentiated again, starts from the inputs.
  Tensors ready;
  std::vector<int64_t> ready_indices;

  // Edges: a ++ b. Incoming: total, values; the statistics are not differentiable.
  variable_list apply(variable_list&& incoming) override {
    variable_list gradients(num_outputs());
    if (!incoming[0].defined() && !incoming[1].defined()) return gradients;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!ready.empty() && !incoming[1].defined() && !at::GradMode::is_enabled() &&
        cpu::is_one(incoming[0])) {
      for (size_t k = 0; k < ready.size(); ++k) gradients[ready_indices[k]] = std::move(ready[k]);
      ready.clear();
      return gradients;
    }
    std::vector<int64_t> wanted;
    for (size_t k = 0; k < gradients.size(); ++k)
      if (task_should_compute_output(k)) wanted.push_back(static_cast<int64_t>(k));
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
    ready.clear();
  }
  std::string name() const override { return "MultiTensorLossBackward0"; }
};

std::tuple<at::Tensor, at::Tensor, at::Tensor> multi_tensor_loss_autograd(
    GANLOSS_SEGMENT_PARAMETERS, bool with_statistics) {
  refuse_forward_mode("multi_tensor_loss", a);
  refuse_forward_mode("multi_tensor_loss", b);
  refuse_weight_gradient(weights);
  auto node = node_for<MultiTensorLossNode>(a, b);
  if (node) node->segments.set(GANLOSS_SEGMENT_ARGUMENTS);
  // Scales of 0 say that the caller wants the values, not the total.
  const bool wants_total = std::any_of(scale.begin(), scale.end(), [](double x) { return x != 0; });
  const bool one_pass = node && wants_total && !with_statistics && cpu::are_plain(a) &&
                        cpu::are_plain(b) && cpu::are_plain(weights);
  at::Tensor total, values, statistics;
  if (one_pass) {
    for (size_t k = 0; k < node->next_edges().size(); ++k)
      if (node->next_edge(k).is_valid()) node->ready_indices.push_back(static_cast<int64_t>(k));
    cpu::OnePass result = run_below_autograd([&] {
      return cpu::multi_tensor_loss_and_gradients(GANLOSS_SEGMENT_ARGUMENTS, node->ready_indices);
    });
    total = result.total;
    values = result.values;
    statistics = result.statistics;
    node->ready = std::move(result.gradients);
  } else {
    std::tie(total, values, statistics) = run_below_autograd(
        [&] { return multi_tensor_loss(GANLOSS_SEGMENT_ARGUMENTS, with_statistics); });
  }
  if (node) {
    torch::autograd::set_history(total, node);
    torch::autograd::set_history(values, node);
  }
  return {total, values, statistics};
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

// ---- gradient_penalty_loss -------------------------------------------------------------------

struct GradientPenaltyLossBackwardNode : torch::autograd::TraceableFunction {
  SavedVariable grad_penalty, gradient, norms;
  int64_t mode;
  double target, scale;

  variable_list apply(variable_list&& directions) override {
    if (!directions[0].defined()) return variable_list(2);
    const std::lock_guard<std::mutex> lock(mutex_);
    auto [first, second] = gradient_penalty_loss_double_backward(
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
  std::string name() const override { return "GradientPenaltyLossBackwardBackward0"; }
};

struct GradientPenaltyLossNode : torch::autograd::TraceableFunction {
  SavedVariable gradient, norms;
  int64_t mode;
  double target, scale;

  variable_list apply(variable_list&& incoming) override {
    if (!incoming[0].defined()) return variable_list(1);
    const std::lock_guard<std::mutex> lock(mutex_);
    return {gradient_penalty_loss_backward(incoming[0], gradient.unpack(), norms.unpack(), mode,
                                           target, scale)};
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    gradient.reset_data();
    norms.reset_data();
  }
  std::string name() const override { return "GradientPenaltyLossBackward0"; }
};

std::tuple<at::Tensor, at::Tensor> gradient_penalty_loss_autograd(const at::Tensor& gradient,
                                                                  int64_t mode, double target,
                                                                  double scale) {
  refuse_forward_mode("gradient_penalty_loss", gradient);
  auto node = node_for<GradientPenaltyLossNode>(gradient);
  auto [penalty, norms] =
      run_below_autograd([&] { return gradient_penalty_loss(gradient, mode, target, scale); });
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

at::Tensor gradient_penalty_loss_backward_autograd(const at::Tensor& grad_penalty,
                                                   const at::Tensor& gradient,
                                                   const at::Tensor& norms, int64_t mode,
                                                   double target, double scale) {
  refuse_forward_mode("gradient_penalty_loss_backward", {grad_penalty, gradient});
  auto node = node_for<GradientPenaltyLossBackwardNode>(grad_penalty, gradient);
  if (node) {
    node->grad_penalty = SavedVariable(grad_penalty, false);
    node->gradient = SavedVariable(gradient, false);
    node->norms = SavedVariable(norms, false);
    node->mode = mode;
    node->target = target;
    node->scale = scale;
  }
  at::Tensor result = run_below_autograd([&] {
    return gradient_penalty_loss_backward(grad_penalty, gradient, norms, mode, target, scale);
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
  m.impl("multi_tensor_loss", &multi_tensor_loss_autograd);
  m.impl("multi_tensor_loss_backward", &multi_tensor_loss_backward_autograd);
  m.impl("interpolate", &interpolate_autograd);
  m.impl("perturb", &perturb_autograd);
  m.impl("gradient_penalty_loss", &gradient_penalty_loss_autograd);
  m.impl("gradient_penalty_loss_backward", &gradient_penalty_loss_backward_autograd);
  // Third order: raise where a gradient is asked for, instead of leaving it out.
  m.impl("multi_tensor_loss_double_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("gradient_penalty_loss_double_backward",
         torch::autograd::autogradNotImplementedFallback());
}

// vmap would run a slow loop, or fail with a message about boxing.
void refuse_vmap(const c10::OperatorHandle& op, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, op.schema().name(),
                              " has no batching rule for torch.vmap: a loss is a mean over its "
                              "whole batch. Use ganloss_fast.reference under vmap.");
}

TORCH_LIBRARY_IMPL(ganloss_fast, FuncTorchBatched, m) {
  for (const char* name :
       {"multi_tensor_loss", "multi_tensor_loss_backward", "multi_tensor_loss_double_backward",
        "interpolate", "perturb", "gradient_penalty_loss", "gradient_penalty_loss_backward",
        "gradient_penalty_loss_double_backward"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&refuse_vmap>());
}

}  // namespace ganloss
