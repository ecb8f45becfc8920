"""One function for each op, with the signature of its schema in ``csrc/schemas.h``.

They serve the registered ops where the extension has no CUDA kernels, and the ops' Python autograd
where there is no extension. A launcher checks what keeps a kernel inside its tensors, puts operands
into one memory order, allocates, and launches; it reads no data and never waits for the device, so
a CUDA graph can capture it.
"""

from ganloss_fast.ops.triton.interpolate import interpolate
from ganloss_fast.ops.triton.multi_tensor_loss import (
    multi_tensor_loss,
    multi_tensor_loss_backward,
    multi_tensor_loss_double_backward,
)
from ganloss_fast.ops.triton.norm_penalty import (
    norm_penalty,
    norm_penalty_backward,
    norm_penalty_double_backward,
)
from ganloss_fast.ops.triton.perturb import perturb

__all__ = [
    "interpolate",
    "multi_tensor_loss",
    "multi_tensor_loss_backward",
    "multi_tensor_loss_double_backward",
    "norm_penalty",
    "norm_penalty_backward",
    "norm_penalty_double_backward",
    "perturb",
]
