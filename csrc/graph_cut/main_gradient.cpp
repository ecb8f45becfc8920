// The gradients of a main loss, computed from those of a penalty's inner gradient.
//
// The inner gradient has sent delta_l, the gradient of the sum of the logits, through every layer
// l of the critic. Of one logit z_b for each sample, and samples that do not meet, the gradient of
// a main loss L there is  phi_b * delta_l  with  phi_b = dL/dz_b:  it needs no way of its own
// through the critic. What is left to compute are gradients of parameters, and for a weight the
// penalty computes one already, of the direction v that comes into the layer:
//
//   dW_l = weight_gradient(delta_l, v)  +  weight_gradient(phi_b * delta_l, a_l)
//        = weight_gradient(delta_l, v + phi_b * a_l)          with the layer's input a_l
#include "main_gradient.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <functional>
#include <mutex>

#include "../autograd/node.h"
#include "weight_gradient.h"

namespace ganloss {

namespace generated = torch::autograd::generated;
using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

at::Tensor per_row(const at::Tensor& phi, const at::Tensor& like) {
  const int64_t samples = phi.size(0), rows = like.size(0);
  at::Tensor factors = phi;
  if (rows != samples) factors = phi.unsqueeze(1).expand({samples, rows / samples}).reshape({rows});
  std::vector<int64_t> shape(like.dim(), 1);
  shape[0] = rows;
  return factors.reshape(shape);
}

at::Tensor scaled(const at::Tensor& tensor, const at::Tensor& factors) {
  if (tensor.scalar_type() == factors.scalar_type()) return tensor * factors;
  at::Tensor product = at::empty_like(tensor);
  at::mul_out(product, tensor, factors);
  return product;
}

void refuse_third_order() {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !at::GradMode::is_enabled(),
      "logits_and_penalty: its backward cannot be differentiated again (create_graph=True, or "
      "another penalty of the logits that it returned). Take that of penalty_from_logits, or take "
      "all penalties of the logits that the critic returned.");
}

namespace {

struct WeightOperands {
  at::Tensor grad_output, image;
};

// What the weight gradients of v and of phi * a are computed from, at once.
WeightOperands merged(const at::Tensor& delta, const at::Tensor& v, const at::Tensor& phi,
                      const at::Tensor& a) {
  if (!phi.defined()) return {delta, v};
  const at::Tensor factors = per_row(phi, delta);
  if (!v.defined()) return {scaled(delta, factors), a};
  if (delta.scalar_type() != at::kHalf)
    return {delta, at::addcmul(v, a, factors.to(a.scalar_type()))};
  // A loss scale takes phi * a out of the range of float16, not phi * delta, which stock autograd
  // has in it too: so a large factor goes there, and v is divided by it.
  const at::Tensor large = factors.abs().clamp_min(1);
  return {scaled(delta, large), scaled(v, large.reciprocal()).add_(scaled(a, factors / large))};
}

struct MergedConvolutionNode final : StandIn {
  variable_list apply(variable_list&& grads) override {
    refuse_third_order();
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(stock, torch::autograd::ERR_BACKWARD_TWICE);
    TORCH_CHECK(!grads[1].defined() && !grads[2].defined(),
                "logits_and_penalty: the penalty depends on a gradient of a weight or bias");
    auto& saved = static_cast<generated::ConvolutionBackwardBackward0&>(*stock);
    const at::Tensor &v = grads.front(), &phi = grads.back();
    variable_list out(num_outputs());
    if (!v.defined() && !phi.defined()) return out;
    const at::Tensor weight = saved.weight_.unpack();
    if (v.defined() && task_should_compute_output(kGradOutput))
      out[kGradOutput] = convolved(saved, v, weight);
    if (task_should_compute_output(kWeight)) {
      const at::Tensor a = phi.defined() ? saved.input_.unpack() : at::Tensor();
      const auto [grad_output, image] = merged(saved.grad_output_.unpack(), v, phi, a);
      out[kWeight] = weight_gradient(saved, image, grad_output, weight);
    }
    return out;
  }
  std::string name() const override { return "GanlossMergedConvolutionBackward0"; }
};

const SavedVariable& saved_input(const Node& forward) {
  if (const auto* node = dynamic_cast<const generated::AddmmBackward0*>(&forward))
    return node->mat1_;
  return static_cast<const generated::MmBackward0&>(forward).self_;
}

struct ApartNode final : Node {
  std::function<void()> run;

  variable_list apply(variable_list&&) override {
    run();
    return {};
  }
  std::string name() const override { return "GanlossApartBackward0"; }
};

// Runs something in a backward of its own. A checkpoint gives a saved tensor out once in a
// backward, and another head of the critic may need it in this one.
void run_apart(std::function<void()> run) {
  auto node = make_node<ApartNode>();
  node->run = std::move(run);
  const at::Tensor one = at::ones({});
  node->add_input_metadata(one);
  torch::autograd::Engine::get_default_engine().execute({Edge(node, 0)}, {one},
                                                        /*keep_graph=*/false,
                                                        /*create_graph=*/false,
                                                        /*accumulate_grad=*/true);
}

// The input of a layer of the forward.
at::Tensor input_of(const Node& forward) {
  const SavedVariable& saved = saved_input(forward);
  if (!saved.has_hooks()) return saved.unpack();
  at::Tensor input;
  run_apart([&] { input = saved.unpack(); });
  return input;
}

// delta [N, out] times weight [out, in]
struct MergedLinearNode final : StandIn {
  NodeHandle forward;  // holds the layer's input, which the inner gradient has no need to save

  variable_list apply(variable_list&& grads) override {
    refuse_third_order();
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(stock, torch::autograd::ERR_BACKWARD_TWICE);
    auto& saved = static_cast<generated::MmBackward0&>(*stock);
    const at::Tensor &v = grads.front(), &phi = grads.back();
    variable_list out(num_outputs());
    if (!v.defined() && !phi.defined()) return out;
    if (v.defined() && task_should_compute_output(0)) out[0] = v.mm(saved.mat2_.unpack().t());
    if (task_should_compute_output(1)) {
      const at::Tensor a = phi.defined() ? input_of(*forward) : at::Tensor();
      const auto [grad_output, image] = merged(saved.self_.unpack(), v, phi, a);
      out[1] = grad_output.t().mm(image);
    }
    return out;
  }
  void release_variables() override {
    StandIn::release_variables();
    const std::lock_guard<std::mutex> lock(mutex_);
    forward.reset();
  }
  std::string name() const override { return "GanlossMergedLinearBackward0"; }
};

// Of a layer's bias: its gradient is the sum of phi * delta [N, C, ...] over all but C.
struct ScaledBiasNode final : Node {
  at::Tensor delta;

  variable_list apply(variable_list&& grads) override {
    refuse_third_order();
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(delta.defined(), torch::autograd::ERR_BACKWARD_TWICE);
    const at::Tensor& phi = grads[0];
    if (!phi.defined() || !task_should_compute_output(0)) return variable_list(1);
    const bool is_wide = delta.scalar_type() == phi.scalar_type();
    at::Tensor rows = is_wide ? delta : scaled(delta, per_row(phi, delta));  // [N, C, ...]
    if (rows.dim() > 2) rows = rows.flatten(2).sum(2);
    return {is_wide ? at::mv(rows.t(), per_row(phi, rows).reshape({-1})) : rows.sum(0)};
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    delta.reset();
  }
  std::string name() const override { return "GanlossScaledBiasBackward0"; }
};

// Runs a node of the critic's forward once more.
struct ReplayNode final : Node {
  NodeHandle forward;
  std::vector<uint32_t> edges;  // of the forward's, those that are wanted
  variable_list deltas;

  variable_list apply(variable_list&& grads) override {
    refuse_third_order();
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(forward, torch::autograd::ERR_BACKWARD_TWICE);
    if (!grads[0].defined()) return variable_list(edges.size());
    variable_list incoming;
    for (const at::Tensor& delta : deltas)
      incoming.push_back(delta.defined() ? scaled(delta, per_row(grads[0], delta)) : delta);
    variable_list outgoing;
    const auto replay = [&] { outgoing = (*forward)(std::move(incoming)); };
    if (dynamic_cast<const generated::AddBackward0*>(forward.get()))
      replay();  // the most frequent one, which has saved nothing
    else
      run_apart(replay);
    variable_list out;
    for (const uint32_t edge : edges) out.push_back(outgoing[edge]);
    return out;
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    forward.reset();
    deltas.clear();
  }
  std::string name() const override { return "GanlossReplayBackward0"; }
};

}  // namespace

NodeHandle merged_convolution(const NodeHandle& stock, const at::Tensor& phi_like) {
  auto node = make_node<MergedConvolutionNode>();
  node->stand_in_for(stock);
  node->add_input_metadata(phi_like);
  // A gradient goes to the layer's input only where the inner gradient is of weights too.
  node->next_edges()[kInput] = Edge();
  return node;
}

NodeHandle merged_linear(const NodeHandle& stock, const NodeHandle& forward,
                         const at::Tensor& phi_like) {
  auto node = make_node<MergedLinearNode>();
  node->stand_in_for(stock);
  node->add_input_metadata(phi_like);
  node->forward = forward;
  return node;
}

NodeHandle scaled_bias(const at::Tensor& delta, const Edge& bias, const at::Tensor& phi_like) {
  auto node = make_node<ScaledBiasNode>();
  node->delta = delta.detach();
  node->add_input_metadata(phi_like);
  node->set_next_edges({bias});
  return node;
}

NodeHandle replayed(const NodeHandle& forward, const std::vector<uint32_t>& edges,
                    variable_list deltas, const at::Tensor& phi_like) {
  auto node = make_node<ReplayNode>();
  node->forward = forward;
  node->edges = edges;
  for (const at::Tensor& delta : deltas)
    node->deltas.push_back(delta.defined() ? delta.detach() : delta);
  node->add_input_metadata(phi_like);
  edge_list next;
  for (const uint32_t edge : edges) next.push_back(forward->next_edge(edge));
  node->set_next_edges(std::move(next));
  return node;
}

}  // namespace ganloss
