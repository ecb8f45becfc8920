// One backward for a main loss of a critic's logits and a penalty on their gradient.
//
// Where a step computes the logits once for both (R3GAN, StarGAN v2, adversarial motion priors),
// the graph cut gains nothing: the branch that it removes carries the main loss too. But that
// branch repeats what the inner gradient has computed, up to a factor for each sample (see
// main_gradient.cpp). So the pair of logits and gradient gets a graph of its own:
//
//   logits' --.                      .--> the inner gradient's graph, cut, with stand-ins for the
//             SharedBackwardNode ----+    nodes of weights                      ^
//   gradient' -'                     |                                          | phi
//                                    '--> every layer: its stand-in, its bias ---'
//
// A backward through it costs a tangent and one weight gradient, 2.00x a forward pass, where stock
// autograd spends 4.00x. The graph of the forward is not touched: another head, features, or the
// logits as they were go their usual way.
//
// It is right where every layer's gradient is that of one sample in each row (sample_rows.cpp, and
// compare()), and where the inner gradient does not depend on activations: then no edge leads from
// its graph back to the forward's.
#include "shared_backward.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/tensor.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <typeinfo>
#include <unordered_set>

#include "graph_cut.h"
#include "hooks.h"
#include "main_gradient.h"
#include "shared_node.h"

namespace ganloss {

namespace generated = torch::autograd::generated;
using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Node;

// ---- the forward's graph -----------------------------------------------------------------------

namespace {

at::IntArrayRef shape_at(const Edge& edge) {
  return C10_AS_INTARRAYREF_SLOW(
      edge.function->input_metadata(edge.input_nr).shape_as_dim_vector());
}

bool has_shape(const Node& node) {
  const auto& output = node.input_metadata(0);
  return !output.was_default_constructed() && !output.is_nested_tensor();
}

void mix(uint64_t& hash, uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15ull + (hash << 6) + (hash >> 2);
}

}  // namespace

SharedBackward::SharedBackward(at::Tensor logits, std::vector<at::Tensor> inputs)
    : logits_(std::move(logits)), inputs_(std::move(inputs)), samples_(inputs_[0].size(0)) {
  for (const at::Tensor& input : inputs_)
    input_edges_.push_back(torch::autograd::impl::gradient_edge(input));
  const bool has_history = std::any_of(inputs_.begin(), inputs_.end(),
                                       [](const at::Tensor& input) { return !input.is_leaf(); });
  if (logits_.numel() != samples_ || (logits_.dim() > 0 && logits_.size(0) != samples_))
    refuse("it has " + std::to_string(logits_.numel()) + " logits for " + std::to_string(samples_) +
           " samples, not one for each");
  else if (inputs_.size() > 1 && has_history)
    refuse("it has several inputs, and they were computed from something");
  else
    walk_forward();
  if (refusal_.empty() && layers_.empty()) refuse("it has no parameters that require grad");
}

void SharedBackward::refuse(const std::string& reason) {
  if (refusal_.empty()) refusal_ = reason;
}

bool SharedBackward::is_input(const Edge& edge) const {
  return std::any_of(input_edges_.begin(), input_edges_.end(), [&](const Edge& input) {
    return input.function == edge.function && input.input_nr == edge.input_nr;
  });
}

bool SharedBackward::is_dependent(const Edge& edge) const {
  if (is_input(edge)) return true;
  const auto found = forward_.find(edge.function.get());
  return found != forward_.end() && found->second;
}

// Depth first, so that what a node leads to is known before it.
void SharedBackward::walk_forward() {
  std::unordered_set<const Node*> behind, reached;  // what the samples come from
  for (const Edge& input : input_edges_) behind.insert(input.function.get());
  struct Step {
    NodeHandle node;
    bool is_done;
  };
  std::vector<Step> stack{{logits_.grad_fn(), false}};
  std::unordered_map<const Node*, uint64_t> order;
  forward_.reserve(256);
  order.reserve(256);
  while (!stack.empty() && refusal_.empty()) {
    const Step step = stack.back();
    stack.pop_back();
    if (behind.count(step.node.get())) {
      reached.insert(step.node.get());
      continue;
    }
    if (!step.is_done) {
      if (!forward_.emplace(step.node.get(), false).second) continue;
      stack.push_back({step.node, true});
      for (const Edge& edge : step.node->next_edges())
        if (edge.is_valid()) stack.push_back({edge.function, false});
      continue;
    }
    mix(fingerprint_, typeid(*step.node).hash_code());
    for (const Edge& edge : step.node->next_edges())
      if (edge.is_valid()) {
        mix(fingerprint_, is_input(edge) ? 1 : order[edge.function.get()] + 2);
        if (is_dependent(edge)) forward_[step.node.get()] = true;
      }
    order[step.node.get()] = order.size();
    if (const auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(step.node.get()))
      mix(fingerprint_, reinterpret_cast<uint64_t>(leaf->variable.unsafeGetTensorImpl()));
    if (forward_[step.node.get()]) visit(step.node);
  }
  if (reached.size() < behind.size()) refuse("it does not depend on its inputs");
}

void SharedBackward::refuse_mixing(const Node& node, Rows rows) {
  // Instance normalisation begins with a reshape, which says less.
  for (const auto& [other, _] : forward_)
    if (other->name().find("BatchNorm") != std::string::npos)
      return refuse("it has batch or instance normalisation (" + other->name() + ")");
  if (rows == Rows::kMixed) return refuse("its samples may meet in " + node.name());
  refuse("it is not known whether its samples meet in " + node.name());
}

// A node that depends on the samples.
void SharedBackward::visit(const NodeHandle& node) {
  if (!has_shape(*node)) return refuse_mixing(*node, Rows::kUnknown);
  const at::IntArrayRef output = shape_at(Edge(node, 0));
  for (const int64_t extent : output) mix(fingerprint_, extent);
  // In stock autograd a hook would see the main loss's gradient.
  if (has_hook(*node)) return refuse(node->name() + " has a hook, of a tensor or a module");
  if (node->input_metadata(0).device() != logits_.device())
    return refuse("it lies on several devices");
  std::vector<uint32_t> of_parameters;
  for (uint32_t k = 0; k < node->num_outputs(); ++k) {
    const Edge& edge = node->next_edge(k);
    if (!edge.is_valid()) continue;
    const bool is_sibling =  // another output of what made the samples
        !is_input(edge) && std::any_of(input_edges_.begin(), input_edges_.end(),
                                       [&](const Edge& e) { return e.function == edge.function; });
    if (is_sibling) return refuse("it depends on " + edge.function->name() + " by another way");
    if (!is_dependent(edge)) {
      of_parameters.push_back(k);
      continue;
    }
    const Rows rows = rows_after({*node, k, shape_at(edge), output, samples_, row_indices_});
    if (rows == Rows::kCustom) {
      has_custom_functions_ = true;
      mix(fingerprint_, std::hash<std::string>()(node->name()));
    } else if (rows != Rows::kKept) {
      return refuse_mixing(*node, rows);
    }
  }
  if (!of_parameters.empty())
    layers_.push_back(std::make_unique<SharedLayer>(node, std::move(of_parameters)));
}

// ---- the inner gradient -------------------------------------------------------------------------

std::vector<at::Tensor> SharedBackward::run(const at::Tensor& directions, bool create_graph,
                                            const at::Tensor& factors) {
  struct Notes {  // taken until the backward is over, or fails
    explicit Notes(SharedBackward& shared) : shared(shared) {}
    ~Notes() {
      for (const auto& layer : shared.layers_) layer->stop();
    }
    SharedBackward& shared;
  } notes(*this);
  for (const auto& layer : layers_) layer->note(factors);
  return torch::autograd::grad({logits_}, inputs_, {directions}, /*retain_graph=*/true,
                               create_graph);
}

std::vector<at::Tensor> SharedBackward::gradients(const at::Tensor& directions) {
  return run(directions, /*create_graph=*/true, /*factors=*/{});
}

at::Tensor SharedBackward::compare(const at::Tensor& directions, const at::Tensor& factors) {
  run(directions * factors.view(directions.sizes()), /*create_graph=*/false, factors);
  std::vector<at::Tensor> found;
  for (const auto& layer : layers_) found.push_back(layer->comparison());
  return at::stack(found);
}

// ---- the pair's own graph ----------------------------------------------------------------------

namespace {

template <typename NodeType>
bool is(const Node& node) {
  return dynamic_cast<const NodeType*>(&node) != nullptr;
}

}  // namespace

struct SharedBackward::Plan {
  std::vector<Node*> nodes;                         // of the inner gradient's graph
  std::vector<std::pair<Node*, uint32_t>> removed;  // edges that carry zeros
  std::unordered_set<const Node*> zeroed;           // what of the forward these send their zeros to
  std::unordered_map<Node*, NodeHandle> stand_ins;

  // Removes what carries zeros, and puts the stand-ins in their places.
  void carry_out() {
    for (const auto& [node, edge] : removed) node->next_edges()[edge] = Edge();
    for (Node* node : nodes) {
      const auto found = stand_ins.find(node);
      Node* kept = found == stand_ins.end() ? node : found->second.get();
      for (Edge& edge : kept->next_edges()) redirect(edge);
    }
  }
  void redirect(Edge& edge) const {
    const auto found = stand_ins.find(edge.function.get());
    if (found != stand_ins.end()) edge.function = found->second;
  }
};

// Reads the graph, and changes nothing: it may end in a refusal.
SharedBackward::Plan SharedBackward::planned(const edge_list& roots) {
  Plan plan;
  std::unordered_set<const Node*> seen;
  std::vector<Node*> stack;
  for (const Edge& root : roots) stack.push_back(root.function.get());
  while (!stack.empty()) {
    Node* node = stack.back();
    stack.pop_back();
    if (forward_.count(node) || !seen.insert(node).second) continue;
    if (is<torch::autograd::CopySlices>(*node)) refuse("an operation of it works in place");
    plan.nodes.push_back(node);
    const int64_t zero = zero_edge(*node);
    const bool is_convolution = is<generated::ConvolutionBackwardBackward0>(*node);
    for (uint32_t k = 0; k < node->num_outputs(); ++k) {
      const Edge& edge = node->next_edge(k);
      if (!edge.is_valid() || (is_convolution && k == kInput)) continue;
      if (k == zero) {
        plan.removed.emplace_back(node, k);
        continue;
      }
      if (is_dependent(edge)) {
        refuse("it is curved: its gradient depends on activations (" + node->name() + ")");
        return plan;
      }
      stack.push_back(edge.function.get());
    }
  }
  mark_zeroed(plan);
  return plan;
}

void SharedBackward::mark_zeroed(Plan& plan) const {
  std::vector<Edge> stack;
  for (const auto& [node, edge] : plan.removed) stack.push_back(node->next_edge(edge));
  while (!stack.empty()) {
    const Edge edge = std::move(stack.back());
    stack.pop_back();
    if (!plan.zeroed.insert(edge.function.get()).second || is_input(edge)) continue;
    for (const Edge& next : edge.function->next_edges())
      if (next.is_valid() && is_dependent(next)) stack.push_back(next);
  }
}

std::optional<std::vector<at::Tensor>> SharedBackward::join(
    const std::vector<at::Tensor>& gradients, const std::optional<at::Tensor>& inverse) {
  PairEdges edges;
  for (const at::Tensor& gradient : gradients) {
    if (!gradient.requires_grad()) refuse("its gradient does not depend on its parameters");
    edges.gradients.push_back(torch::autograd::impl::gradient_edge(gradient));
  }
  if (!refusal_.empty()) return std::nullopt;
  Plan plan = planned(edges.gradients);
  if (!refusal_.empty()) return std::nullopt;

  const bool is_double = logits_.scalar_type() == at::kDouble;  // else wider than float16
  const at::Tensor phi_like =
      at::empty({samples_}, logits_.options().dtype(is_double ? at::kDouble : at::kFloat));
  for (const Edge& input : input_edges_)
    edges.inputs.push_back({input, plan.zeroed.count(input.function.get()) > 0});
  for (const auto& layer : layers_) {
    const LayerNodes nodes = layer->nodes(phi_like);
    if (nodes.merged) {
      plan.stand_ins[nodes.stock.get()] = nodes.merged;
      edges.layers.push_back({Edge(nodes.merged, nodes.merged->num_inputs() - 1), false});
    }
    const bool gets_zero = plan.zeroed.count(layer->node());
    for (const NodeHandle& node : nodes.scaled) edges.layers.push_back({Edge(node, 0), gets_zero});
  }
  for (Node* node : plan.nodes)  // a constant kernel: stock computes a gradient that nobody gets
    if (is<generated::ConvolutionBackwardBackward0>(*node) && !plan.stand_ins.count(node))
      plan.stand_ins[node] = merged_convolution(node->getptr(), phi_like);
  plan.carry_out();
  for (Edge& root : edges.gradients) plan.redirect(root);
  return pair_on_graph(logits_, gradients, std::move(edges), phi_like,
                       inverse.value_or(at::Tensor()));
}

}  // namespace ganloss
