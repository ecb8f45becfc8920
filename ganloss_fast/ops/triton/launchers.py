"""One function for each op, with the signature of its schema in ``csrc/registration.cpp``.

They serve the registered ops where the extension has no CUDA kernels, and ``functions.py`` where
there is no extension. A launcher checks what keeps a kernel inside its tensors, puts operands into
one memory order, allocates, and launches; it reads no data and never waits for the device, so a
CUDA graph can capture it.
"""

from ganloss_fast.ops.triton.batch_launchers import (
    interpolate,
    norm_penalty,
    norm_penalty_backward,
    norm_penalty_double_backward,
    perturb,
)
from ganloss_fast.ops.triton.segment_launchers import (
    multi_tensor_loss,
    multi_tensor_loss_backward,
    multi_tensor_loss_double_backward,
)

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
