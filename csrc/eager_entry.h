// Shorter ways from Python to multi_tensor_loss than torch.ops.
//
// The schema's seven lists are boxed element by element; on small logits that costs more than the
// forward pass. These entries read the Python segments themselves, or the lists of logits that
// segments would be built of, and call the dispatcher, so autograd, torch.func and dispatch modes
// see the same op. torch.compile must be given torch.ops, which it can trace.
#pragma once

#include <pybind11/pybind11.h>

namespace ganloss {

void define_eager_entry(pybind11::module_& m);

}  // namespace ganloss
