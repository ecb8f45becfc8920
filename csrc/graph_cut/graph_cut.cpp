// The graph cut: a gradient penalty at 4.00x a forward pass instead of 6.00x.
//
// The inner gradient g of a piecewise-linear critic does not depend on the activations, only on
// their signs. Its autograd graph has an edge to them all the same (LeakyReluBackwardBackward0
// to the convolution before it), stock autograd sends a tensor of zeros along it, and the
// convolutions multiply those zeros. cut_second_order removes such edges after the fact: the
// forward, its buffers and its in-place operations are untouched, and what is left runs the
// stock kernels, so the gradients are the same to the bit.
//
// Removing an edge loses two things, which a ZeroNode between g and the penalty gives back:
// a bias that got an explicit zero would get nothing (and Adam would skip it), and a tensor
// inside the critic could no longer be asked for its (zero) gradient.
//
// The walk also replaces nodes of convolutions that have a cheaper equal (replacements.cpp), with
// fast_weights by one that is equal to rounding.
//
// Edges are edited in place: not while another thread runs a backward through the same graph.
#include "graph_cut.h"

#include <c10/util/flat_hash_map.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/tensor.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <typeinfo>
#include <unordered_map>

#include "../autograd/node.h"
#include "constant_weight.h"
#include "replacements.h"
#include "weight_gradient.h"

namespace ganloss {

using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;

namespace {

// ---- the allow-list --------------------------------------------------------------------------

struct NodeKind {
  int64_t edge = -1;  // the edge to cut, or -1
  bool real_only = false;
  int64_t idle_input = -1;
  bool is_leaf = false;
  bool is_custom = false;          // of a custom function: the type does not say which
  bool repeats_its_edges = false;  // holds a second copy of them, and compares
  // Whether a defined gradient that comes in makes a defined one go out on an edge: one bit for
  // each edge. Conservative: a 0 costs the addition of a zero, a wrong 1 would lose one.
  uint64_t surely_defined = 0;
};

RowLookup& row_lookup() {
  static auto* lookup = new RowLookup();  // not destroyed: it may hold an object of Python
  return *lookup;
}

// Kinds by C++ type, as a name costs an allocation. (Custom functions of Python share one type and
// differ in name, but no name of theirs ends in a digit, and no row has one.)
std::unordered_map<const std::type_info*, NodeKind>& kinds_by_type() {
  static std::unordered_map<const std::type_info*, NodeKind> kinds;  // its entries stay in place
  return kinds;
}

NodeKind make_kind(const Node& node) {
  NodeKind kind;
  const std::string name = node.name();
  if (const std::optional<CutRow> row = row_lookup() ? row_lookup()(name) : std::nullopt) {
    kind.edge = row->edge;
    kind.real_only = row->real_only;
    kind.idle_input = row->idle_input;
  }
  kind.is_custom = !name.empty() && !('0' <= name.back() && name.back() <= '9');
  kind.is_leaf = dynamic_cast<const AccumulateGrad*>(&node) != nullptr;
  kind.repeats_its_edges = dynamic_cast<const torch::autograd::CopySlices*>(&node) != nullptr;
  if (name == kConvolutionSecondOrder || name == kFastConvolutionSecondOrder ||
      name == kConstantConvolutionSecondOrder || name == "PreluKernelBackwardBackward0")
    kind.surely_defined = 0b101;  // grad_output and weight; the input's needs a weight gradient
  else if (!kind.is_custom && node.num_inputs() == 1)
    kind.surely_defined = ~uint64_t(0);
  if (kind.edge >= 0) kind.surely_defined &= ~(uint64_t(1) << kind.edge);
  return kind;
}

// The caller holds the GIL, which guards the table.
const NodeKind& kind_of(const Node& node) {
  const std::type_info* type = &typeid(node);
  if (const auto found = kinds_by_type().find(type); found != kinds_by_type().end())
    return found->second;
  const NodeKind kind = make_kind(node);  // may let other threads in
  return kinds_by_type()[type] = kind;
}

bool applies(const NodeKind& kind, const Node& node) {
  const auto edge = static_cast<size_t>(kind.edge);
  if (edge >= node.num_outputs() || !node.next_edge(edge).is_valid()) return false;
  const auto dtype = c10::typeMetaToScalarType(node.input_metadata(0).options().dtype());
  return !kind.real_only || !c10::isComplexType(dtype);
}

// ---- what stays behind at a node that lost an edge -------------------------------------------

// Remembers the edge, so that a second cut of the same graph (one gradient in two penalties)
// finds the same zeros. A pre-hook because it costs nothing: a post-hook would make the engine
// keep the incoming gradients alive.
struct CutRecord final : torch::autograd::FunctionPreHook {
  explicit CutRecord(Edge edge) : edge(std::move(edge)) {}
  variable_list operator()(const variable_list& grads) override { return grads; }
  Edge edge;
};

// For an edge that is zero only while another incoming gradient is undefined (PReLU, whose
// weight gradient depends on the activation): decided when the node runs.
struct DropWhileIdle final : torch::autograd::FunctionPostHook {
  DropWhileIdle(int64_t edge, int64_t idle_input) : edge(edge), idle_input(idle_input) {}
  variable_list operator()(const variable_list& outputs, const variable_list& inputs) override {
    variable_list kept = outputs;
    if (!inputs[idle_input].defined()) kept[edge] = at::Tensor();
    return kept;
  }
  int64_t edge, idle_input;
};

const Edge* recorded_edge(Node& node) {
  for (const auto& hook : node.pre_hooks())
    if (auto* record = dynamic_cast<CutRecord*>(hook.get())) return &record->edge;
  return nullptr;
}

// A hook of somebody else: a tensor hook, retain_grad, a module's full backward hook.
bool has_foreign_hook(Node& node) {
  if (!node.tensor_pre_hooks().empty() || !node.retains_grad_hooks().empty()) return true;
  for (const auto& hook : node.pre_hooks())
    if (!dynamic_cast<CutRecord*>(hook.get())) return true;
  for (const auto& hook : node.post_hooks())
    if (!dynamic_cast<DropWhileIdle*>(hook.get())) return true;
  return false;
}

// Cuts the node's edge if its row says so. Returns the edge, cut here or earlier, or null.
const Edge* cut(Node& node, const NodeKind& kind) {
  if (const Edge* earlier = recorded_edge(node)) return earlier;
  if (!applies(kind, node)) return nullptr;
  const Edge edge = node.next_edge(kind.edge);
  if (kind.idle_input >= 0)
    node.add_post_hook(std::make_unique<DropWhileIdle>(kind.edge, kind.idle_input));
  else
    node.next_edges()[kind.edge] = Edge();
  node.add_pre_hook(std::make_unique<CutRecord>(edge));
  return recorded_edge(node);
}

// ---- giving zeros back -----------------------------------------------------------------------

// Between g and the penalty. Passes the gradients through, and gives an explicit zero to leaves
// that lost theirs. It also holds the removed edges, so that every tensor of the critic can
// still be reached; along those it sends zeros only if somebody looks: an autograd.grad that
// asks for a tensor inside, or a hook. A plain backward pays nothing for them.
struct ZeroNode final : Node {
  size_t passed = 0;  // edges: `passed` gradients, `leaves` leaves, then the removed edges
  size_t leaves = 0;
  std::vector<NodeHandle> inside;  // nodes of the critic's forward below the removed edges

  variable_list apply(variable_list&& grads) override {
    variable_list out(num_outputs());
    bool any = false;
    for (size_t k = 0; k < passed; ++k) {
      any |= grads[k].defined();
      out[k] = std::move(grads[k]);
    }
    if (!any) return out;
    const size_t end = somebody_looks_inside() ? num_outputs() : passed + leaves;
    for (size_t k = passed; k < end; ++k)
      if (task_should_compute_output(k)) {
        const Edge& edge = next_edge(k);
        out[k] = edge.function->input_metadata(edge.input_nr).zeros_like();
      }
    return out;
  }
  void release_variables() override { inside.clear(); }
  std::string name() const override { return "GanlossZeroFillBackward0"; }

 private:
  bool somebody_looks_inside() const {
    // Null or empty in a plain backward; else it holds what autograd.grad was asked for.
    const auto* asked = torch::autograd::get_current_graph_task_exec_info();
    const auto is_asked_for = [&](Node* node) {
      if (!asked || asked->empty()) return false;
      const auto found = asked->find(node);
      return found != asked->end() && found->second.captures_ && !found->second.captures_->empty();
    };
    for (const NodeHandle& node : inside)
      if (has_foreign_hook(*node) || is_asked_for(node.get())) return true;
    return false;
  }
};

// ---- the walk --------------------------------------------------------------------------------

enum Mark : uint8_t {
  kSeen = 1,     // reachable from g as stock autograd has it
  kKept = 2,     // gets a defined gradient after the cut, too
  kReached = 4,  // reachable from a removed edge: stock sends zeros here
};

class Walk {
 public:
  Walk() {
    entries_.reserve(512);
    stack_.reserve(512);
  }

  // Visits every node reachable from the stack that does not have `mark` yet.
  template <typename Visit>
  void visit(Mark mark, Visit&& visit_node) {
    while (!stack_.empty()) {
      Node* node = stack_.back();
      stack_.pop_back();
      Entry& entry = entries_[node];
      if (entry.marks & mark) continue;
      entry.marks |= mark;
      if (!entry.kind) entry.kind = &kind_of(*node);
      visit_node(*node, *entry.kind);
    }
  }
  void push(const Edge& edge) {
    if (edge.is_valid()) stack_.push_back(edge.function.get());
  }
  bool has(Node* node, Mark mark) const {
    const auto found = entries_.find(node);
    return found != entries_.end() && (found->second.marks & mark);
  }
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    const NodeKind* kind = nullptr;
    uint8_t marks = 0;
  };
  ska::flat_hash_map<Node*, Entry> entries_;
  std::vector<Node*> stack_;
};

// What a cut takes away: zeros of leaves, and the way to tensors inside the critic.
struct Lost {
  edge_list leaves, removed;
  std::vector<NodeHandle> inside;
};

bool has_leaf(const std::vector<at::Tensor>& tensors, const Node* leaf) {
  return std::any_of(tensors.begin(), tensors.end(), [leaf](const at::Tensor& tensor) {
    return tensor.is_leaf() && tensor.requires_grad() &&
           torch::autograd::impl::gradient_edge(tensor).function.get() == leaf;
  });
}

Lost what_is_lost(Walk& walk, const edge_list& roots, edge_list removed,
                  const std::vector<at::Tensor>& hidden) {
  Lost lost;
  std::vector<Node*> leaves;
  for (const Edge& edge : removed) walk.push(edge);
  walk.visit(kReached, [&](Node& node, const NodeKind& kind) {
    if (kind.is_leaf)
      leaves.push_back(&node);
    else
      lost.inside.push_back(node.getptr());
    if (const Edge* edge = kind.edge >= 0 ? recorded_edge(node) : nullptr) walk.push(*edge);
    for (const Edge& edge : node.next_edges()) walk.push(edge);
  });
  for (const Edge& root : roots) walk.push(root);
  walk.visit(kKept, [&](Node& node, const NodeKind& kind) {
    for (size_t k = 0; k < node.num_outputs() && k < 64; ++k)
      if (kind.surely_defined >> k & 1) walk.push(node.next_edge(k));
  });
  for (Node* leaf : leaves)
    if (!walk.has(leaf, kKept) && !has_leaf(hidden, leaf))
      lost.leaves.emplace_back(leaf->getptr(), 0);
  lost.removed = std::move(removed);
  return lost;
}

void add_parameters(Lost& lost, const Walk& walk, const std::vector<at::Tensor>& parameters,
                    const std::vector<at::Tensor>& hidden) {
  for (const at::Tensor& parameter : parameters)
    if (parameter.is_leaf() && parameter.requires_grad()) {
      NodeHandle leaf = torch::autograd::impl::gradient_edge(parameter).function;
      if (!walk.has(leaf.get(), kReached) && !walk.has(leaf.get(), kKept) &&
          !has_leaf(hidden, leaf.get()))
        lost.leaves.emplace_back(std::move(leaf), 0);
    }
}

// The same values under a new node.
std::vector<at::Tensor> put_under(const NodePointer<ZeroNode>& node,
                                  const std::vector<at::Tensor>& grads) {
  std::vector<at::Tensor> result;
  result.reserve(grads.size());
  for (const at::Tensor& grad : grads) {
    result.push_back(grad);
    if (!grad.defined() || !grad.requires_grad()) continue;
    result.back() = grad.variable_data();
    torch::autograd::set_history(result.back(), node);
  }
  return result;
}

}  // namespace

void set_row_lookup(RowLookup lookup) {
  kinds_by_type().clear();
  row_lookup() = std::move(lookup);
}

int64_t zero_edge(const Node& node) {
  const NodeKind& kind = kind_of(node);
  return applies(kind, node) ? kind.edge : -1;
}

CutResult cut_second_order(const std::vector<at::Tensor>& grads, int64_t zero_grads,
                           const std::vector<at::Tensor>& parameters,
                           const std::vector<at::Tensor>& hidden, bool fast_weights) {
  const auto zeros = static_cast<ZeroGrads>(zero_grads);
  Walk walk;
  Replacements replacements(fast_weights);
  bool is_new_root = false;
  std::vector<Edge> roots;
  for (const at::Tensor& grad : grads)
    if (grad.defined() && grad.requires_grad()) {
      Edge root = torch::autograd::impl::gradient_edge(grad);
      const Node* stock = root.function.get();
      replacements.redirect(root);
      is_new_root |= root.function.get() != stock;
      walk.push(root);
      roots.push_back(std::move(root));
    }

  edge_list removed;
  bool compiled = false;
  walk.visit(kSeen, [&](Node& node, const NodeKind& kind) {
    if (kind.is_custom && !kind.is_leaf) compiled |= node.name().starts_with("CompiledFunction");
    if (kind.edge >= 0)
      if (const Edge* edge = cut(node, kind)) {
        removed.push_back(*edge);
        walk.push(*edge);
      }
    for (Edge& edge : node.next_edges()) {
      if (!kind.repeats_its_edges) replacements.redirect(edge);
      walk.push(edge);
    }
  });
  CutResult result{grads, static_cast<int64_t>(removed.size()), static_cast<int64_t>(walk.size()),
                   compiled};
  if (roots.empty()) return result;
  Lost lost;
  if (zeros != ZeroGrads::kNone) {
    lost = what_is_lost(walk, roots, std::move(removed), hidden);
    if (zeros == ZeroGrads::kAll) add_parameters(lost, walk, parameters, hidden);
  }
  if (lost.leaves.empty() && lost.removed.empty() && !is_new_root) return result;

  auto node = make_node<ZeroNode>();
  node->passed = roots.size();
  node->leaves = lost.leaves.size();
  node->inside = std::move(lost.inside);
  edge_list edges = std::move(roots);
  edges.insert(edges.end(), lost.leaves.begin(), lost.leaves.end());
  edges.insert(edges.end(), lost.removed.begin(), lost.removed.end());
  node->set_next_edges(std::move(edges));
  result.grads = put_under(node, grads);
  return result;
}

}  // namespace ganloss
