"""Freezing a discriminator while the generator learns from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch.nn import Module
from torch.nn.parameter import Parameter, UninitializedParameter

from ganloss_fast._torch import make_dynamo_look_again, run_by_dynamo
from ganloss_fast.checks import describe


@contextlib.contextmanager
def frozen(
    *modules: Module, keep: Module | Sequence[Module] = ()
) -> Iterator[Module | tuple[Module, ...]]:
    """Within the block, the parameters of ``modules`` need no gradient.

    In a generator step the discriminator is only passed through: its own weight gradients are
    computed for nothing and thrown away by the next ``zero_grad``. Freezing it skips them; the
    generator's gradient is the same to the bit::

        with frozen(period_discriminator, scale_discriminator):
            generator_loss(...)

    Build the graph inside the block; the backward may run inside or after it, but with
    ``torch.utils.checkpoint`` it must run inside. DistributedDataParallel and fully sharded
    modules may be frozen, but not constructed inside the block. Parameters that a module gets
    inside the block are not frozen. Blocks may be nested. Enter it outside of torch.compile.

    Args:
        modules: the discriminators, one or several.
        keep: a module, or several, whose parameters stay as they are: the generator, where it
            shares layers (an encoder, an embedding) with a discriminator. Without it, the
            generator gets no gradient for those.

    Yields:
        The module, or a tuple of them if there are several.

    Raises:
        TypeError: if one of ``modules`` or ``keep`` is not a module, or there is none.
        ValueError: if a lazy layer has not run yet. Nothing is frozen then.
        RuntimeError: inside torch.compile, which cannot trace it, in Dynamo's own class.
    """
    if torch.compiler.is_compiling():
        _refuse_to_be_traced()
    _check_modules("modules", modules)
    kept_modules = (keep,) if isinstance(keep, Module) else keep
    if not isinstance(kept_modules, (list, tuple)):
        raise TypeError(f"keep: expected a torch.nn.Module or several, got {describe(keep)}.")
    _check_modules("keep", kept_modules)
    kept = {id(p) for module in kept_modules for p in module.parameters()}
    wanted = [p for p in _parameters(modules) if p.requires_grad and id(p) not in kept]
    changed: list[Parameter] = []
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
            changed.append(parameter)
        make_dynamo_look_again(modules)
        yield modules[0] if len(modules) == 1 else modules
    finally:
        for parameter in changed:
            parameter.requires_grad_(True)
        make_dynamo_look_again(modules)


@run_by_dynamo
def _refuse_to_be_traced() -> None:
    raise RuntimeError(
        "frozen: torch.compile cannot trace a change of requires_grad. Enter the block outside of "
        "the compiled function: with frozen(critic): loss = compiled_step(...)."
    )


def _check_modules(name: str, modules: Sequence[Module]) -> None:
    if name == "modules" and not modules:
        raise TypeError("modules: expected one torch.nn.Module at least, got none.")
    for module in modules:
        if isinstance(module, Module):
            continue
        advice = ""
        if name == "modules" and isinstance(module, (list, tuple)):
            advice = " Unpack it: frozen(*discriminators)."
        raise TypeError(f"{name}: expected a torch.nn.Module, got {describe(module)}.{advice}")


def _parameters(modules: Sequence[Module]) -> Iterator[Parameter]:
    """Every parameter once; refuses those that have no shape yet, which torch cannot freeze."""
    seen: set[int] = set()
    for module in modules:
        for name, parameter in module.named_parameters():
            if isinstance(parameter, UninitializedParameter):
                raise ValueError(
                    f"modules: {name} of {type(module).__name__} belongs to a lazy layer that has "
                    "not run, so it cannot be frozen. Run the module once before."
                )
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter
