// Autograd nodes across torch releases: 2.13 and later hold them in an intrusive_ptr, earlier
// releases in a shared_ptr.
#pragma once

#include <torch/csrc/autograd/function.h>

namespace ganloss {

template <typename Node>
auto make_node() {
#ifdef GANLOSS_INTRUSIVE_NODES
  return c10::make_intrusive<Node>();
#else
  return std::shared_ptr<Node>(new Node(), torch::autograd::deleteNode);
#endif
}
template <typename Node>
using NodePointer = decltype(make_node<Node>());

}  // namespace ganloss
