"""One forward of a discriminator for real and fake samples, in place of one for each.

The arithmetic is the same. But a network reads its weights once and not twice, normalises them
once, and its backward writes their gradients once: where there are few samples and many weights,
as in vocoders, that is most of the time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ganloss_fast._torch import FakeTensor, tree_flatten, tree_leaves, tree_unflatten
from ganloss_fast.checks import check_same_device, check_tensor, describe
from ganloss_fast.penalties.critic.modules import is_power_iteration, uses_batch_statistics
from ganloss_fast.penalties.critic.random_state import RandomState
from ganloss_fast.penalties.critic.reach import Reach
from ganloss_fast.penalties.critic.rounding import differ, tolerance_of

_calls: weakref.WeakKeyDictionary[Module, _Calls] = weakref.WeakKeyDictionary()


@dataclass
class _Calls:
    """Of one discriminator: how many there were, and at which one to ask whether samples meet."""

    made: int = 0
    due: int = 1


def what_keeps_apart(discriminator: Module) -> str | None:
    """Of its modules: what makes one forward another one than two."""
    for part in discriminator.modules():
        if uses_batch_statistics(part):
            return (
                "it normalises by its batch, which would be that of real and fake samples "
                "together. Run it on either of them."
            )
        if part.training and is_power_iteration(part):
            return (
                "it has a spectral norm in training mode, whose every forward takes a step of the "
                "power iteration; one in place of two is another training. Run it on either side."
            )
    return None


def _split(output: object, counts: Sequence[int]) -> Sequence[Any]:
    """The samples of either side."""
    if not isinstance(output, Tensor):
        return [output, output]
    if output.dim() == 0 or output.shape[0] != sum(counts):
        raise ValueError(
            f"discriminator: expected outputs with {sum(counts)} samples in front, those of real "
            f"and of fake, got {describe(output)}."
        )
    # Not two slices: the backward would fill up each with zeros, and add them.
    halves: Sequence[Tensor] = output.split(counts)
    return halves


def _tensors(outputs: object) -> list[Tensor]:
    found = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return [tensor for tensor in found if tensor.is_floating_point() and tensor.numel() > 0]


def _reach(discriminator: Module, samples: Tensor, own: slice, others: slice) -> tuple[bool, bool]:
    """Whether the outputs of a side depend on its own samples, and on those of the other."""
    samples = samples.detach().requires_grad_()
    weights = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        outputs = [out for out in _tensors(discriminator(samples)) if out.requires_grad]
        # Random weights: a sum over a normalised batch is constant.
        total = sum(
            (out[own] * (torch.rand(out[own].shape, generator=weights) + 0.5).to(out)).sum()
            for out in outputs
        )
    if not isinstance(total, Tensor):
        return False, False
    (gradient,) = torch.autograd.grad(total, samples)
    return bool(gradient[own].nan_to_num().any()), bool(gradient[others].nan_to_num().any())


def _is_judged_otherwise(discriminator: Module, real: Tensor, together: Sequence[Tensor]) -> bool:
    """Whether real samples have other outputs alone, by more than rounding explains."""
    with torch.no_grad():
        alone = _tensors(discriminator(real))
    tolerance = tolerance_of(together, [real])
    return any(differ(one, other, tolerance) for one, other in zip(together, alone, strict=True))


def _refuse_meetings(
    discriminator: Module, real: Tensor, fake: Tensor, together: Sequence[Tensor]
) -> bool:
    """Raises where samples of one side change what is said of the other; whether there was
    anything to be seen."""
    samples = torch.cat([real, fake])
    of_real, of_fake = slice(len(real)), slice(len(real), None)
    random = RandomState(real.device, Reach(discriminator).generators)
    try:
        reach = [_reach(discriminator, samples, of_real, of_fake)]
        is_random = random.has_moved()
        reach.append(_reach(discriminator, samples, of_fake, of_real))
        meet = any(other for _, other in reach)
        if not (meet or is_random):
            meet = _is_judged_otherwise(discriminator, real, together)
    finally:
        random.restore()
    if meet:
        raise ValueError(
            "discriminator: real samples are judged otherwise beside fake ones. Its samples meet "
            "(statistics over the batch). Run it on either of them."
        )
    return all(own for own, _ in reach)


def _must_not_wait_for(samples: Tensor) -> bool:
    """Whether values are not to be had: there are none, or a CUDA graph is being captured."""
    if samples.is_meta or isinstance(samples, FakeTensor):
        return True
    return samples.is_cuda and torch.cuda.is_current_stream_capturing()


def forward_together(
    discriminator: Callable[[Tensor], Any], real: Tensor, fake: Tensor
) -> tuple[Any, Any]:
    """What a discriminator says of real and of fake samples, by one forward.

    For discriminators whose samples do not meet: no batch norm in training mode, no statistics
    over the batch. Outputs and gradients are those of two forwards, to rounding::

        real_logits, fake_logits = gf.forward_together(discriminator, real, fake.detach())
        loss = gf.discriminator_loss(real_logits, fake_logits, "least_squares")

    Calls 1, 2, 4, 8, ... with a module ask whether its samples meet: whether outputs on one side
    have a gradient at the other, and are those of real samples alone. That costs two steps and
    waits for the device; inside of torch.compile, and while a CUDA graph is captured, nothing is
    asked. Dropout draws one mask for all samples together, and outputs that are random are not
    compared.

    Args:
        discriminator: a module, samples to outputs: a tensor, or lists, tuples and dicts of them,
            all with the samples in front.
        real: [B, ...].
        fake: [B', ...], alike but for their number. Detached in the discriminator's step.

    Returns:
        (outputs on real, outputs on fake), each structured as the discriminator's: views of what
        it returned, which torch lets nobody change in place.

    Raises:
        ValueError: if the samples do not fit each other, if an output has another number of
            samples, or if the discriminator is one whose samples meet.
        TypeError: if samples are no floating-point tensors, or the discriminator is no module.
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
    apart = what_keeps_apart(discriminator)
    if apart is not None:
        raise ValueError(f"discriminator: {apart}")
    counts = [len(real), len(fake)]
    leaves, structure = tree_flatten(discriminator(torch.cat([real, fake])))
    halves = [_split(leaf, counts) for leaf in leaves]
    of_real, of_fake = (tree_unflatten([half[k] for half in halves], structure) for k in (0, 1))
    if not (torch.compiler.is_compiling() or _must_not_wait_for(real)):
        calls = _calls.setdefault(discriminator, _Calls())
        calls.made += 1
        if calls.made >= calls.due and min(counts) > 0:
            shown = _refuse_meetings(discriminator, real, fake, _tensors(of_real))
            calls.due = 2 * calls.made if shown else calls.made + 1
    return of_real, of_fake
