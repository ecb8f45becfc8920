"""One forward of a discriminator for real and fake samples, in place of one for each.

The arithmetic is the same. But a network reads its weights once and not twice, normalises them
once, and its backward writes their gradients once: where there are few samples and many weights,
as in vocoders, that is most of the time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ganloss_fast._torch import BatchNorm, tree_flatten, tree_leaves, tree_unflatten
from ganloss_fast.checks import check_same_device, check_tensor, describe
from ganloss_fast.penalties.critic.modules import is_power_iteration

# Discriminators whose joint outputs were compared with separate ones.
_COMPARED: weakref.WeakSet[Module] = weakref.WeakSet()
_TOLERANCE = 1e-2  # of the largest output; samples that meet are off by much more


def _check_modules(discriminator: Module) -> bool:
    """Refuses what makes one forward another one than two; whether it draws random numbers."""
    draws = False
    for part in discriminator.modules():
        if isinstance(part, BatchNorm) and (part.training or part.running_mean is None):
            raise ValueError(
                "discriminator: it normalises by its batch, which would be that of real and fake "
                "samples together. Run it on either of them."
            )
        if part.training and is_power_iteration(part):
            raise ValueError(
                "discriminator: it has a spectral norm in training mode, whose every forward takes "
                "a step of the power iteration; one in place of two is another training. Run it on "
                "either side."
            )
        draws = draws or (part.training and "Dropout" in type(part).__name__)
    return draws


def _split(output: object, count: int, whole: int, first: bool) -> Any:
    """The samples of one side."""
    if not isinstance(output, Tensor):
        return output
    if output.dim() == 0 or output.shape[0] != whole:
        raise ValueError(
            f"discriminator: expected outputs with {whole} samples in front, those of real and of "
            f"fake, got {describe(output)}."
        )
    return output[:count] if first else output[count:]


def _compare(discriminator: Module, real: Tensor, together: object) -> None:
    """Once: whether real samples are judged as they are alone."""
    with torch.no_grad():
        alone = discriminator(real)
    for one, other in zip(tree_leaves(together), tree_leaves(alone), strict=True):
        if not isinstance(one, Tensor):
            continue
        apart = (one.detach() - other).abs().max() if one.numel() else one.new_zeros(())
        largest = other.abs().max() if one.numel() else one.new_zeros(())
        if bool(apart > _TOLERANCE * largest):
            raise ValueError(
                "discriminator: real samples are judged otherwise beside fake ones. Its samples "
                "meet (statistics over the batch), or it draws random numbers. Run it on either "
                "of them."
            )


def forward_together(
    discriminator: Callable[[Tensor], Any], real: Tensor, fake: Tensor
) -> tuple[Any, Any]:
    """What a discriminator says of real and of fake samples, by one forward.

    For discriminators whose samples do not meet: no batch norm in training mode, no statistics
    over the batch. Outputs and gradients are those of two forwards, to rounding::

        real_logits, fake_logits = gf.forward_together(discriminator, real, fake.detach())
        loss = gf.discriminator_loss(real_logits, fake_logits, "least_squares")

    The first call with a module compares its outputs with those of real samples alone, which costs
    a forward and waits for the device; not inside of torch.compile. Dropout draws one mask for all
    samples together, and is not compared.

    Args:
        discriminator: a module, samples to outputs: a tensor, or lists, tuples and dicts of them,
            all with the samples in front.
        real: [B, ...].
        fake: [B', ...], alike but for their number. Detached in the discriminator's step.

    Returns:
        (outputs on real, outputs on fake), each structured as the discriminator's.

    Raises:
        ValueError: if the samples do not fit each other, if an output has another number of
            samples, or if the discriminator is one whose samples meet.
        TypeError: if samples are no tensors, or the discriminator is no module.
    """
    if not isinstance(discriminator, Module):
        raise TypeError(
            f"discriminator: expected a torch.nn.Module, got {describe(discriminator)}."
        )
    check_same_device("fake", check_tensor("fake", fake), "real", check_tensor("real", real))
    if real.dim() == 0 or real.shape[1:] != fake.shape[1:] or real.dtype != fake.dtype:
        raise ValueError(
            f"fake: expected samples like real, {describe(real)}, got {describe(fake)}."
        )
    draws = _check_modules(discriminator)
    count, whole = len(real), len(real) + len(fake)
    outputs = discriminator(torch.cat([real, fake]))
    leaves, structure = tree_flatten(outputs)
    sides = [
        tree_unflatten([_split(leaf, count, whole, first) for leaf in leaves], structure)
        for first in (True, False)
    ]
    if not (draws or torch.compiler.is_compiling() or discriminator in _COMPARED):
        _compare(discriminator, real, sides[0])
        _COMPARED.add(discriminator)
    return sides[0], sides[1]
