"""Who computes an op for a tensor: one ladder for all of them.

1. The registered op, with C++ autograd: over the native kernels, or over the Triton kernels where
   the extension was built without its CUDA kernels.
2. The op as ``torch.autograd.Function`` classes over the Triton kernels: in eager, where the
   extension is missing, or where Triton was chosen.
3. The plain-PyTorch reference. Under torch.compile it also stands in for Triton: Inductor makes
   Triton kernels of it, fused with what is around.

The classes of step 2 are a chain, ``NormPenaltyForward -> NormPenaltyBackward ->
NormPenaltyDoubleBackward``; the last raises when it is differentiated. Their ``kernels`` is any
namespace of functions with the signatures of the schemas in ``csrc/schemas.h``, such as
:mod:`ganloss_fast.ops.triton.launchers`. Under torch.func and torch.compile such classes lose the
second-order term or refuse to run, and a dispatch mode (FakeTensorMode, a FLOP counter) does not
see their kernels: see :func:`is_plain_eager`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganloss_fast import backends
from ganloss_fast._torch import is_looked_on

Kernels = Any  # a module or another namespace of op-level functions
Kernel = Callable[..., Any]


class Op(NamedTuple):
    """An op as torch's dispatcher and its autograd see it. All of its callables take the arguments
    of its schema."""

    name: str
    function: Kernel  # Python autograd over the kernels, which are its first argument
    fakes: tuple[Kernel, ...]  # of the op, its backward and its double backward if it has them
    registered: Kernel | None  # None without the extension

    def fake_kernels(self) -> dict[str, Kernel]:
        """The fake kernel of every schema: shapes, dtypes and strides without data."""
        suffixes = ("", "_backward", "_double_backward")
        return {self.name + suffix: fake for suffix, fake in zip(suffixes, self.fakes)}


def declare(name: str, function: Kernel, *fakes: Kernel) -> Op:
    registered = None
    if backends.HAS_NATIVE:
        registered = getattr(torch.ops.ganloss_fast, name).default
    return Op(name, function, fakes, registered)


def is_plain_eager(tensor: Tensor) -> bool:
    """Whether nothing looks on: where autograd.Function classes over kernels are right."""
    return (
        not torch.compiler.is_compiling()
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and not is_looked_on()
    )


@functools.cache
def triton_launchers() -> Kernels:
    """Imported when a tensor needs it: Triton takes a second to import, and may be missing."""
    from ganloss_fast.ops.triton import launchers

    return launchers


def _serves_triton(tensor: Tensor) -> bool:
    """Whether the registered op serves ``tensor`` with the Triton kernels."""
    return (
        backends.REGISTERS_TRITON
        and tensor.is_cuda
        and not torch.compiler.is_compiling()
        and backends.is_triton(tensor)
    )


def serving(op: Op, tensor: Tensor) -> Kernel | None:
    """What computes ``op`` for ``tensor`` from the arguments of its schema; None: the reference."""
    if backends.is_native(tensor) or _serves_triton(tensor):
        return op.registered
    if is_plain_eager(tensor) and backends.is_triton(tensor):
        return functools.partial(op.function, triton_launchers())
    return None


def refuse_third_order(op: str) -> None:
    raise NotImplementedError(
        f"ganloss_fast::{op} has no third-order derivative. It has one under "
        "ganloss_fast.use_backend('reference')."
    )


# ---- registration: what importing ganloss_fast.ops does to torch's dispatcher ------------------


def register_fakes(ops: Iterable[Op]) -> None:
    for op in ops:
        for name, fake in op.fake_kernels().items():
            torch.library.register_fake(f"ganloss_fast::{name}", fake)


def register_launchers(ops: Iterable[Op], device_type: str) -> torch.library.Library:
    """Makes the Triton launchers the kernels of the registered ops for a device type.

    The registration lasts as long as the library that is returned.
    """

    def launcher(name: str) -> Kernel:
        return lambda *arguments: getattr(triton_launchers(), name)(*arguments)

    library = torch.library.Library("ganloss_fast", "IMPL")
    for op in ops:
        for name in op.fake_kernels():
            library.impl(name, launcher(name), device_type.upper())
    return library
