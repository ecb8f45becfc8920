// Hooks of an autograd node.
#pragma once

#include <torch/csrc/autograd/function.h>

namespace ganloss {

// Whether somebody sees what goes through the node: a tensor hook, retain_grad, a hook of the node
// itself, a module's full backward hook.
inline bool has_hook(torch::autograd::Node& node) {
  return !node.tensor_pre_hooks().empty() || !node.retains_grad_hooks().empty() ||
         !node.pre_hooks().empty() || !node.post_hooks().empty();
}

}  // namespace ganloss
