"""The ops: one function for each, bound once to the backend that serves it.

A reader goes from here to the schema in ``csrc/registration.cpp`` and greps the same name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast import backends
from ganloss_fast.checks import is_unsavable, savable
from ganloss_fast.ops import functions, reference
from ganloss_fast.ops.terms import LossOutputs, Segment

PENALTY_MODES = reference.PENALTY_MODES

if backends.HAS_NATIVE:
    from ganloss_fast._C import multi_tensor_loss as _multi_tensor_loss_eager

    _multi_tensor_loss = torch.ops.ganloss_fast.multi_tensor_loss.default
    _interpolate = torch.ops.ganloss_fast.interpolate.default
    _perturb = torch.ops.ganloss_fast.perturb.default
    _norm_penalty = torch.ops.ganloss_fast.norm_penalty.default


def multi_tensor_loss(segments: list[Segment], with_statistics: bool = False) -> LossOutputs:
    """Sum of ``scale * mean(weight * term(a - b))`` over segments, in one call.

    See :mod:`ganloss_fast.ops.terms`. Gradients flow to every ``a`` and ``b``, to second order.
    """
    if torch.compiler.is_compiling():
        if not backends.is_native(segments[0].a):
            return _multi_tensor_loss_elsewhere(segments, with_statistics)
        return LossOutputs(*_multi_tensor_loss(*flatten_segments(segments), with_statistics))
    try:
        if not backends.is_native(segments[0].a):
            return _multi_tensor_loss_elsewhere(segments, with_statistics)
        return LossOutputs._make(_multi_tensor_loss_eager(segments, with_statistics))
    except RuntimeError:
        # Autograd saves no tensor that was made under inference mode. Nobody waits to ask for
        # those before something failed.
        savable_segments = [_savable(segment) for segment in segments]
        if all(new is old for new, old in zip(savable_segments, segments)):
            raise
        return multi_tensor_loss(savable_segments, with_statistics)


def _savable(segment: Segment) -> Segment:
    """The segment, with copies of what was made under inference mode."""
    others = (segment.b, segment.weight)
    if not any(t is not None and is_unsavable(t) for t in (segment.a, *others)):
        return segment
    b, weight = (None if t is None else savable(t) for t in others)
    return segment._replace(a=savable(segment.a), b=b, weight=weight)


def flatten_segments(
    segments: Sequence[Segment],
) -> tuple[list, list, list, list, list, list, list]:
    """The segments as the op's schema takes them: dense lists, and which operands are there."""
    others = [s.b for s in segments if s.b is not None]
    weights = [s.weight for s in segments if s.weight is not None]
    operands = [(s.b is not None) + 2 * (s.weight is not None) for s in segments]
    parameters = [p for s in segments for p in (s.term.first, s.term.second)]
    return (
        [s.a for s in segments],
        others,
        weights,
        operands,
        [s.term.code for s in segments],
        parameters,
        [s.scale for s in segments],
    )


def interpolate(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """``fake + alpha * (real - fake)``; alpha is 0-d, [B], or shaped like the images."""
    if not backends.is_native(real):
        return _interpolate_elsewhere(real, fake, alpha)
    return _interpolate(real, fake, alpha)


def perturb(inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    """``inputs + sigma * noise``; the noise depends on the int64 seed and the index alone."""
    if not backends.is_native(inputs):
        return _perturb_elsewhere(inputs, sigma, seed)
    return _perturb(inputs, sigma, seed)


def norm_penalty(gradient: Tensor, mode: str, target: float, scale: float) -> tuple[Tensor, Tensor]:
    """``scale * mean_i penalty(||g_i||)`` and the detached norms [B] of a gradient [B, ...]."""
    if not backends.is_native(gradient):
        return _norm_penalty_elsewhere(gradient, mode, target, scale)
    return _norm_penalty(gradient, PENALTY_MODES.index(mode), target, scale)


# ---- where no native kernel serves: Triton, then the reference ---------------------------------
#
# Under torch.compile the reference: Inductor makes Triton kernels of it, fused with what is around.


@functools.cache
def _triton_launchers() -> Any:
    """Imported when a tensor needs it: Triton takes a second to import, and may be missing."""
    from ganloss_fast.ops.triton import launchers

    return launchers


def _is_triton_op(tensor: Tensor) -> bool:
    """Whether the registered op serves ``tensor`` with the Triton kernels, and C++ autograd."""
    return (
        backends.REGISTERS_TRITON
        and tensor.is_cuda
        and not torch.compiler.is_compiling()
        and backends.is_triton(tensor)
    )


def _is_triton_function(tensor: Tensor) -> bool:
    """Whether functions.py serves ``tensor``, with Python autograd: in plain eager alone."""
    return functions.can_serve(tensor) and backends.is_triton(tensor)


def _multi_tensor_loss_elsewhere(segments: list[Segment], with_statistics: bool) -> LossOutputs:
    a = segments[0].a
    if _is_triton_op(a):
        return LossOutputs(*_multi_tensor_loss(*flatten_segments(segments), with_statistics))
    if _is_triton_function(a):
        arguments = flatten_segments(segments)
        return LossOutputs(
            *functions.multi_tensor_loss(_triton_launchers(), *arguments, with_statistics)
        )
    return reference.multi_tensor_loss(segments, with_statistics)


def _interpolate_elsewhere(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    if _is_triton_op(real):
        return _interpolate(real, fake, alpha)
    if _is_triton_function(real):
        return functions.interpolate(_triton_launchers(), real, fake, alpha)
    return reference.lerp(real, fake, alpha)


def _perturb_elsewhere(inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    if _is_triton_op(inputs):
        return _perturb(inputs, sigma, seed)
    if _is_triton_function(inputs):
        return functions.perturb(_triton_launchers(), inputs, sigma, seed)
    return reference.perturb(inputs, sigma, seed)


def _norm_penalty_elsewhere(
    gradient: Tensor, mode: str, target: float, scale: float
) -> tuple[Tensor, Tensor]:
    code = PENALTY_MODES.index(mode)
    if _is_triton_op(gradient):
        return _norm_penalty(gradient, code, target, scale)
    if _is_triton_function(gradient):
        return functions.norm_penalty(_triton_launchers(), gradient, code, target, scale)
    return reference.norm_penalty(gradient, mode, target, scale)


# ---- fake kernels: shapes, dtypes and strides without data -----------------------------------


def _loss_dtype(a: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in a) else torch.float32


def _fake_multi_tensor_loss(a, b, weights, operands, terms, parameters, scale, with_statistics):
    dtype = _loss_dtype(a)
    return (
        a[0].new_empty((), dtype=dtype),
        a[0].new_empty((len(a),), dtype=dtype),
        a[0].new_empty((len(a) if with_statistics else 0, 4), dtype=dtype),
    )


def _fake_gradients(a, b, operands, wanted):
    """Gradients of ``wanted`` of a ++ b: a b shaped like its a takes the layout of a."""
    with_b = [s for s, taken in enumerate(operands) if taken & 1]
    gradients = []
    for index in wanted:
        if index < len(a):
            gradients.append(torch.empty_like(a[index]))
        elif b[index - len(a)].dim() == 0:
            gradients.append(torch.empty_like(b[index - len(a)]))
        else:
            gradients.append(torch.empty_like(a[with_b[index - len(a)]]))
    return gradients


def _fake_multi_tensor_loss_backward(
    grad_total, grad_values, a, b, weights, operands, terms, parameters, scale, wanted
):
    return _fake_gradients(a, b, operands, wanted)


def _fake_multi_tensor_loss_double_backward(
    directions,
    grad_total,
    grad_values,
    a,
    b,
    weights,
    operands,
    terms,
    parameters,
    scale,
    wanted,
    wanted_second,
):
    dtype = _loss_dtype(a)
    total, values = a[0].new_empty((), dtype=dtype), a[0].new_empty((len(a),), dtype=dtype)
    return total, values, _fake_gradients(a, b, operands, wanted_second)


def _fake_norm_penalty(gradient, mode, target, scale):
    dtype = _loss_dtype([gradient])
    return (
        gradient.new_empty((), dtype=dtype),
        gradient.new_empty((gradient.shape[0],), dtype=dtype),
    )


def _fake_norm_penalty_backward(grad_penalty, gradient, norms, mode, target, scale):
    return torch.empty_like(gradient)


def _fake_norm_penalty_double_backward(
    direction, grad_penalty, gradient, norms, mode, target, scale
):
    return torch.empty_like(grad_penalty), torch.empty_like(gradient)


def _fake_interpolate(real, fake, alpha):
    return torch.empty_like(real)


def _fake_perturb(inputs, sigma, seed):
    return torch.empty_like(inputs)


FAKE_KERNELS: dict[str, Callable[..., Any]] = {
    "multi_tensor_loss": _fake_multi_tensor_loss,
    "multi_tensor_loss_backward": _fake_multi_tensor_loss_backward,
    "multi_tensor_loss_double_backward": _fake_multi_tensor_loss_double_backward,
    "interpolate": _fake_interpolate,
    "perturb": _fake_perturb,
    "norm_penalty": _fake_norm_penalty,
    "norm_penalty_backward": _fake_norm_penalty_backward,
    "norm_penalty_double_backward": _fake_norm_penalty_double_backward,
}
if backends.HAS_NATIVE:
    for _name, _fake in FAKE_KERNELS.items():
        torch.library.register_fake(f"ganloss_fast::{_name}", _fake)


def register_launchers(device_type: str) -> torch.library.Library:
    """Makes the Triton launchers the kernels of the registered ops for a device type.

    The registration lasts as long as the library that is returned.
    """

    def launcher(name: str) -> Callable[..., Any]:
        return lambda *arguments: getattr(_triton_launchers(), name)(*arguments)

    library = torch.library.Library("ganloss_fast", "IMPL")
    for name in FAKE_KERNELS:
        library.impl(name, launcher(name), device_type.upper())
    return library


if backends.REGISTERS_TRITON:
    _triton_library = register_launchers("cuda")
