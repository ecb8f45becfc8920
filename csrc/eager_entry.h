// A shorter way from Python to multi_tensor_loss than torch.ops.
//
// The schema's seven lists are boxed element by element; on small logits that costs more than the
// forward pass. This entry reads the Python segments themselves and calls the dispatcher, so
// autograd, torch.func and dispatch modes see the same op. torch.compile must be given torch.ops,
// which it can trace.
#pragma once

#include <pybind11/pybind11.h>

namespace ganloss {

void define_eager_entry(pybind11::module_& m);

}  // namespace ganloss
