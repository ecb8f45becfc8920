"""Forwards that ran before: the same samples, the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ganloss_fast.bench.profile.ledger import FORWARD, Call, D, G, Ledger, Operator

SHARED = (
    "gf.generator_backward(loss, generator, shared_critic=discriminator)\n"
    "gf.discriminator_backward(loss, discriminator, shares_forward=True)    # same logits"
)
WITH_PENALTY = (
    "logits = critic(samples).flatten()    # once, after samples.requires_grad_()\n"
    'logits, r1 = gf.logits_and_penalty(logits, samples, "r1")    # one backward for both\n'
    'or r1 = gf.penalty_from_logits(logits, samples, "r1")    # with any critic'
)


@dataclass(frozen=True)
class Repeats:
    """Operators of forwards that one remedy leaves out."""

    what: str
    operators: list[Operator]
    lines: str


def forward_of(ledger: Ledger, call: Call) -> list[Operator]:
    return [o for o in ledger.operators if o.place.part == FORWARD and o.place.call == call.number]


def _pairs(ledger: Ledger, moved: bool) -> Iterator[tuple[Call, Call]]:
    """Calls, each with the first one of the same samples: with weights that moved since, or not."""
    first: dict[tuple[object, ...], Call] = {}
    for call in ledger.calls:
        if not call.inputs or call.again:
            continue
        samples = call.side, call.module, call.inputs
        before = first.setdefault((*samples, *(() if moved else (call.weights,))), call)
        if before is not call and (before.weights != call.weights) == moved:
            yield before, call


def repeated(ledger: Ledger) -> set[int]:
    """Calls that ran twice alike; one of the two is to stay, and may need its graph."""
    return {call.number for pair in _pairs(ledger, moved=False) for call in pair}


def repeats(ledger: Ledger, notes: list[str]) -> list[Repeats]:
    found: dict[tuple[str, str], list[Operator]] = {}
    why_not: dict[str, str] = {}
    for before, call in _pairs(ledger, moved=False):
        again = [o for o in forward_of(ledger, call) if o.useful]  # else another finding has them
        if call.steps_a_norm:
            why_not[call.side] = (
                "has a spectral norm in training mode, which moves in every forward"
            )
        elif call.random or before.random:
            why_not[call.side] = "draws random numbers, a dropout mask or noise, each time"
        elif again:
            found.setdefault(_remedy(ledger, before, call), []).extend(again)
            if call.counts_statistics:
                notes.append(
                    f"The running statistics of the {call.side}'s normalisation see samples once "
                    "where one forward serves twice. Gradients are the same."
                )
    notes += [
        f"The {side} sees the same samples twice, but {why}: one forward would not be exact."
        for side, why in why_not.items()
    ]
    _note_moved(ledger, notes)
    return [Repeats(what, operators, lines) for (what, lines), operators in found.items()]


def _remedy(ledger: Ledger, before: Call, call: Call) -> tuple[str, str]:
    """What it is called, and the lines."""
    what = f"forwards of the {call.side} that ran before, on the same samples and weights"
    name = call.side if call.side in (D, G) else "network"
    if call.side != D:
        return what, f"found = {name}(samples)    # once, and used in both places"
    owners = {ledger.owner_of_call(before), ledger.owner_of_call(call)}
    if owners != {D}:
        return what, SHARED
    if {before.number, call.number} & ledger.differentiated:
        return f"{what}: for the loss, and for the penalty", WITH_PENALTY
    return (
        f"{what}, both in the discriminator's step",
        "logits = discriminator(samples)    # once, with its graph, and used in both places",
    )


def _note_moved(ledger: Ledger, notes: list[str]) -> None:
    calls = [call for _, call in _pairs(ledger, moved=True) if call.side not in (D, "")]
    for side in dict.fromkeys(call.side for call in calls):
        flops = sum(o.flops for c in calls if c.side == side for o in forward_of(ledger, c))
        share = flops / max(ledger.total().flops, 1)
        notes.append(
            f"The {side} sees the same samples again after its weights moved ({share:.1%} of the "
            "FLOPs). With one forward the step would be another algorithm."
        )
