// What the autograd nodes share.
//
// They are written as ATen's own generated code is. torch::autograd::Function would refuse
// torch.func, and a Python autograd.Function loses the second-order term in a compiled step.
//
//   multi_tensor_loss -> MultiTensorLossNode -> multi_tensor_loss_backward
//     -> MultiTensorLossBackwardNode -> multi_tensor_loss_double_backward (no further derivative)
//
// and the same for norm_penalty. interpolate and perturb are linear, so their backward is
// a few ATen ops and has every derivative that they have.
//
// No sizes and no data are read here: shapes may be symbolic.
#pragma once

#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "../ops.h"
#include "node.h"

namespace ganloss {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

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
inline void refuse_forward_mode(const char* op, at::TensorList tensors) {
  for (const at::Tensor& tensor : tensors)
    TORCH_CHECK_NOT_IMPLEMENTED(
        !tensor.defined() || !tensor._fw_grad(0).defined(), "ganloss_fast::", op,
        " has no forward-mode derivative (torch.func.jvp, dual "
        "tensors). Use reverse mode, or ganloss_fast.use_backend('reference').");
}

inline std::vector<SavedVariable> save(at::TensorList tensors) {
  std::vector<SavedVariable> saved;
  saved.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) saved.emplace_back(tensor, false);
  return saved;
}
inline Tensors unpack(const std::vector<SavedVariable>& saved) {
  Tensors tensors;
  tensors.reserve(saved.size());
  for (const SavedVariable& variable : saved) tensors.push_back(variable.unpack());
  return tensors;
}
inline void release(std::vector<SavedVariable>& saved) {
  for (SavedVariable& variable : saved) variable.reset_data();
}

inline std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}
inline at::Tensor or_undefined(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() ? *tensor : at::Tensor();
}

}  // namespace ganloss
