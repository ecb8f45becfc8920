"""The ops: one file for each, with its reference, its Python autograd and its fake kernels.

``terms.py`` says what a segment is, ``dispatch.py`` who computes an op, ``triton`` holds the
kernels in Triton. A reader goes from here to the schema in ``csrc/schemas.h`` and greps the
same name.
"""

from __future__ import annotations

import torch

from ganloss_fast import backends
from ganloss_fast.ops import dispatch
from ganloss_fast.ops.interpolate import INTERPOLATE, interpolate
from ganloss_fast.ops.multi_tensor_loss import (
    MULTI_TENSOR_LOSS,
    flatten_segments,
    multi_tensor_loss,
    total_of_sides,
)
from ganloss_fast.ops.norm_penalty import NORM_PENALTY, norm_penalty
from ganloss_fast.ops.perturb import PERTURB, perturb

__all__ = [
    "flatten_segments",
    "interpolate",
    "multi_tensor_loss",
    "norm_penalty",
    "perturb",
    "total_of_sides",
]

OPS = (MULTI_TENSOR_LOSS, NORM_PENALTY, INTERPOLATE, PERTURB)


def register_launchers(device_type: str) -> torch.library.Library:
    """The Triton launchers as kernels of all ops, for as long as the result lives."""
    return dispatch.register_launchers(OPS, device_type)


if backends.HAS_NATIVE:
    dispatch.register_fakes(OPS)
if backends.REGISTERS_TRITON:
    _triton_library = register_launchers("cuda")
