"""What a watched step throws away or does twice, and the lines that leave it out.

Every remedy is exact: the step learns the same, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ganloss_fast import backends
from ganloss_fast.bench.memory import observe
from ganloss_fast.bench.profile.target import Target
from ganloss_fast.bench.profile.watch import (
    FORWARD,
    OF_INPUT,
    OF_WEIGHTS,
    REST,
    SECOND,
    Call,
    Cost,
    D,
    G,
    Ledger,
    Place,
    Watch,
    watched,
)
from ganloss_fast.graph_cut.rows import ROWS, proven_row
from ganloss_fast.graph_cut.stand_ins import STAND_INS, proven_stand_in
from ganloss_fast.penalties.critic.modules import is_power_iteration

WORTH_SAYING = 0.005  # of the FLOPs of the step


@dataclass(frozen=True)
class Finding:
    """Something that can be left out."""

    what: str
    cost: Cost
    lines: str  # to write instead


@dataclass(frozen=True)
class Profile:
    """A step, and what was found in it."""

    name: str
    ledger: Ledger
    findings: list[Finding]
    notes: list[str]


def profile(target: Target, warm_up: int = 1) -> Profile:
    """Runs the step, and then three times more, watched: booked to its parts; without that, as it
    is; and with the dead second-order branch cut off."""
    for row in ROWS:  # each is proven on its first use, which is no part of the step
        proven_row(row.node)
    if backends.HAS_NATIVE:
        for stand_in in STAND_INS:
            proven_stand_in(stand_in.node)
    for _ in range(warm_up):
        target.step()
    ledger = _watch(target, with_cut=False, with_labels=True)
    whole = _watch(target, with_cut=False, with_labels=False)
    shorter = _watch(target, with_cut=True, with_labels=False)
    notes = []
    if not any(call.side == D for call in ledger.calls):
        notes.append("The step called no discriminator: is it the one that was named?")
    if ledger.uncounted:
        notes.append(f"No FLOP formula in torch for: {', '.join(sorted(ledger.uncounted))}.")
    found = [*_thrown_away(ledger), *_repeated(ledger, target.discriminators, notes)]
    dead = _difference(whole.total(), shorter.total())
    if dead.flops > 0:
        found.append(
            Finding(
                "the second-order branch that carries exact zeros",
                dead,
                "gradient = gf.cut_second_order(gradient)    # after autograd.grad\n"
                "or the penalty itself: gf.gradient_penalty(critic, real, fake, ...)",
            )
        )
    least = WORTH_SAYING * max(ledger.total().flops, 1)
    worth = [finding for finding in found if finding.cost.flops >= least]
    return Profile(target.name, ledger, sorted(worth, key=lambda f: -f.cost.flops), notes)


def _watch(target: Target, with_cut: bool, with_labels: bool) -> Ledger:
    watch = Watch(target.discriminators, target.generators, with_cut, with_labels)
    with watched(watch) as ledger:
        target.step()
    return ledger


def _difference(whole: Cost, part: Cost) -> Cost:
    return Cost(
        whole.flops - part.flops,
        max(0.0, whole.seconds - part.seconds),
        max(0, whole.written - part.written),
        whole.operators - part.operators,
    )


def _thrown_away(ledger: Ledger) -> Iterator[Finding]:
    """Gradients that no optimizer uses."""

    def in_backward(place: Place, side: str, *parts: str) -> bool:
        if place.call is None or place.part not in parts:
            return False
        return ledger.calls[place.call].side == side

    def generated(place: Place) -> bool:
        return place.call is not None and ledger.calls[place.call].generated

    weights = ledger.where(
        lambda owner, place: owner == G and generated(place) and in_backward(place, D, OF_WEIGHTS)
    )
    yield Finding(
        "weight gradients of the discriminator in the generator's step",
        weights,
        "gf.generator_backward(loss, generator)    # for loss.backward()\n"
        "or build the loss inside: with gf.frozen(discriminator):",
    )
    real = ledger.where(
        lambda owner, place: (
            owner == G and not generated(place) and in_backward(place, D, OF_INPUT, OF_WEIGHTS)
        )
    )
    yield Finding(
        "the backward of the discriminator on real samples, in the generator's step",
        real,
        "with torch.no_grad():    # around discriminator(real) in the generator's step\n"
        "or feature_matching_loss(..., detach_real=True), which is the default",
    )
    through = ledger.where(
        lambda owner, place: owner == D and in_backward(place, G, OF_INPUT, OF_WEIGHTS)
    )
    yield Finding(
        "the backward of the generator in the discriminator's step",
        through,
        "discriminator(fake.detach())\nand gf.discriminator_backward(loss, discriminator)",
    )


def _repeated(
    ledger: Ledger, discriminators: Sequence[nn.Module], notes: list[str]
) -> Iterator[Finding]:
    """Forwards of the discriminator that ran before: the same samples, the same weights."""
    first: dict[tuple[object, ...], Call] = {}
    again: list[int] = []
    for call in ledger.calls:
        if call.side != D:
            continue
        if call.key in first:
            again.append(call.number)
        else:
            first[call.key] = call
    parts = [part for d in discriminators for part in d.modules() if part.training]
    if again and any(map(is_power_iteration, parts)):
        notes.append(
            "The discriminator sees the same samples twice, but has a spectral norm in training "
            "mode, which moves in every forward: one forward would not be exact."
        )
        return
    if again and any(isinstance(part, nn.Dropout) and part.p > 0 for part in parts):
        notes.append(
            "The discriminator sees the same samples twice, but draws another dropout mask each "
            "time: one forward would not be exact."
        )
        return
    yield Finding(
        "forwards of the discriminator that ran before, on the same samples and weights",
        ledger.where(lambda owner, place: place.part == FORWARD and place.call in again),
        "gf.generator_backward(loss, generator, shared_critic=discriminator)\n"
        "gf.discriminator_backward(loss, discriminator, shares_forward=True)    # same logits",
    )


def loss_arithmetic(ledger: Ledger) -> Cost:
    """What is neither network's nor an optimizer's."""
    return ledger.where(lambda owner, place: place.part == REST)


def loss_and_penalty(ledger: Ledger) -> Cost:
    """The loss arithmetic, the second order, and the forwards that a penalty differentiates: what
    fused losses and penalties can make faster, and what Amdahl's law therefore speaks of."""
    return ledger.where(
        lambda owner, place: place.part in (REST, SECOND) or place.call in ledger.differentiated
    )


def peak_bytes(target: Target) -> int:
    """Of one more step."""
    device = next(p.device for module in target.discriminators for p in module.parameters())
    return observe(target.step, device).peak_bytes
