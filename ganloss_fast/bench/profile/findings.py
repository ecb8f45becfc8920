"""What a watched step throws away or does twice, and the lines that leave it out.

Every remedy is exact: the step learns the same, to rounding.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ganloss_fast import backends
from ganloss_fast.bench import timing
from ganloss_fast.bench.memory import observe
from ganloss_fast.bench.profile.ledger import (
    FORWARD,
    REST,
    SECOND,
    Cost,
    D,
    G,
    Ledger,
    Operator,
    cost_of,
)
from ganloss_fast.bench.profile.repeats import forward_of, repeated, repeats
from ganloss_fast.bench.profile.target import Target
from ganloss_fast.bench.profile.watch import watch
from ganloss_fast.graph_cut.rows import ROWS, proven_row
from ganloss_fast.graph_cut.stand_ins import STAND_INS, proven_stand_in

WORTH_SAYING = 0.005  # of the FLOPs of the step
WORTH_SAYING_BY_TIME = 0.04  # of its time, of what has products at all: small ones take long
TIMED_STEPS = 3


@dataclass(frozen=True)
class Finding:
    """Something that can be left out; ``keeps`` are bytes that it keeps alive at one time."""

    what: str
    cost: Cost
    lines: str  # to write instead
    keeps: int = 0


@dataclass(frozen=True)
class Profile:
    """A step, and what was found in it. ``together`` is the cost of all findings, in which what
    several of them leave out counts once."""

    name: str
    ledger: Ledger
    findings: list[Finding]
    together: Cost
    notes: list[str]

    @property
    def speedup(self) -> float:
        """Of a step without all that was found, by the time of its operators."""
        whole = self.ledger.total().seconds
        return whole / max(whole - self.together.seconds, 1e-12)


Waste = tuple[str, list[Operator], str]  # what it is, its operators, the lines instead


def profile(target: Target, warm_up: int = 1) -> Profile:
    """Runs the step, and then once more, watched."""
    for row in ROWS:  # each is proven on its first use, which is no part of the step
        proven_row(row.node)
    for stand_in in STAND_INS if backends.HAS_NATIVE else ():
        proven_stand_in(stand_in.node)
    for _ in range(warm_up):
        target.step()
    ledger = watch(target.sides, target.step)
    notes = list(target.notes) + _notes(ledger, target)
    wastes: list[Waste] = [*_backward(ledger), *_forward(ledger), *_second_order(ledger)]
    wastes += [(each.what, each.operators, each.lines) for each in repeats(ledger, notes)]
    worth = [waste for waste in wastes if _is_worth_saying(cost_of(waste[1]), ledger.total())]
    found = [Finding(what, cost_of(operators), lines) for what, operators, lines in worth]
    found.sort(key=lambda finding: -finding.cost.flops)
    saved = {id(o): o for _, operators, _ in worth for o in operators}
    return Profile(
        target.name,
        ledger,
        found + list(_memory(ledger)),
        cost_of(saved.values()),
        list(dict.fromkeys(notes)),
    )


def _is_worth_saying(cost: Cost, whole: Cost) -> bool:
    if cost.flops >= WORTH_SAYING * max(whole.flops, 1):
        return True
    return cost.flops > 0 and cost.seconds >= WORTH_SAYING_BY_TIME * whole.seconds


def _notes(ledger: Ledger, target: Target) -> list[str]:
    notes = []
    for side in (D, G):
        if not any(call.side == side for call in ledger.calls):
            notes.append(
                f"The {side} was not called: is it the one that the step trains? Nothing can be "
                "said of it."
            )
    if not any(call.side for call in ledger.calls):
        notes.append(
            "A step in a thread of its own cannot be seen: let it run in that of its caller."
        )
    for side in (G, D):
        if not any(side in turn for turn in ledger.turns):
            notes.append(
                f"No optimizer of the {side} stepped (a GradScaler skips what overflows): what is "
                "said holds for such a step alone."
            )
    if ledger.uncounted:
        notes.append(f"No FLOP formula in torch for: {', '.join(sorted(ledger.uncounted))}.")
    return notes


# ---- what no optimizer uses --------------------------------------------------------------------

WEIGHTS = (
    "weight gradients of the discriminator in the generator's step",
    "gf.generator_backward(loss, generator)    # for loss.backward()\n"
    "or build the loss inside: with gf.frozen(discriminator):",
)
REAL = (
    "the backward of the discriminator on samples that need no gradient, in the generator's step",
    "with torch.no_grad():    # around discriminator(real) in the generator's step\n"
    "or feature_matching_loss(..., detach_real=True), which is the default",
)
REAL_OF_SHARED = (
    REAL[0],
    "gf.generator_backward(loss, generator)    # for loss.backward(); its graph is needed later",
)
GENERATOR = (
    "the backward of the generator in the discriminator's step",
    "discriminator(fake.detach())\nand gf.discriminator_backward(loss, discriminator)",
)
SAMPLES = (
    "gradients of the samples in the discriminator's step, which nothing uses",
    "gf.discriminator_backward(loss, discriminator)    # for loss.backward()",
)
OF_CREATE_GRAPH = (
    "gradients that nothing uses, of a backward(create_graph=True)",
    "(gradient,) = torch.autograd.grad(logits.sum(), samples, create_graph=True)",
)
NOBODY = (
    "backward passes of which no optimizer uses anything",
    "leave them out, or detach what leads there",
)


def _backward(ledger: Ledger) -> Iterator[Waste]:
    """Gradients that no optimizer uses, but for the zeros of the second order."""
    useful = {(o.place.call, o.backward) for o in ledger.operators if o.useful}
    used_calls = {call for call, backward in useful if backward is not None}
    found: dict[tuple[str, str], list[Operator]] = {}
    wasted = [
        o
        for o in ledger.operators
        if o.backward is not None and o.place.part != FORWARD and not (o.useful or o.dead)
    ]  # a forward in a backward is a checkpoint's
    through = {o.backward for o in wasted if ledger.side(o) == G}
    for operator in wasted:
        assert operator.backward is not None
        call, side = operator.place.call, ledger.side(operator)
        used = ledger.backwards[operator.backward].used
        if G in used and side == D:
            if (call, operator.backward) in useful:
                kind = WEIGHTS
            else:
                kind = REAL_OF_SHARED if call in used_calls else REAL
        elif D in used and G not in used and operator.backward in through:
            kind = GENERATOR
        elif D in used and G not in used:
            kind = SAMPLES
        else:
            created = ledger.backwards[operator.backward].create_graph
            kind = OF_CREATE_GRAPH if created else NOBODY
        found.setdefault(kind, []).append(operator)
    for (what, lines), operators in found.items():
        yield what, operators, lines


def _forward(ledger: Ledger) -> Iterator[Waste]:
    """Forwards of which nobody uses the result. (Not the generator's: its samples may leave torch,
    for a buffer in NumPy.)"""
    found: dict[tuple[str, str], list[Operator]] = {}
    for call in ledger.calls:
        operators = [] if call.again else forward_of(ledger, call)
        if call.side != G and cost_of(operators).flops and not any(o.useful for o in operators):
            step = ledger.turns[operators[0].turn] if operators[0].turn < len(ledger.turns) else ""
            where = f" in the {step}'s step" if step in (D, G) else ""
            found.setdefault((call.side, where), []).extend(operators)
    for (side, where), operators in found.items():
        what = f"forwards of the {side}{where}, of which no optimizer uses the result"
        yield what, operators, "leave them out there"


# ---- what is computed twice, or is zero --------------------------------------------------------


def _second_order(ledger: Ledger) -> Iterator[Waste]:
    yield (
        "the second-order branch that carries exact zeros",
        [o for o in ledger.operators if o.dead],
        "gradient = gf.cut_second_order(gradient)    # after autograd.grad\n"
        "or the penalty itself: gf.gradient_penalty(critic, real, fake, ...)",
    )
    yield (
        "a second way back through the networks behind the generator, after autograd.grad",
        [o for o in ledger.operators if o.again and ledger.side(o) != G],
        "gf.balanced_backward([nll, adversarial], images, last_layer, weights=[1.0, weight])\n"
        "    # for the two autograd.grad of an adaptive weight, and loss.backward()",
    )


def _memory(ledger: Ledger) -> Iterator[Finding]:
    """Graphs of the generator that no backward uses."""
    used: set[int | None] = {
        o.place.call for o in ledger.operators if o.backward is not None and o.useful
    }
    used |= repeated(ledger)
    idle = [c for c in ledger.calls if c.side == G and c.saved and c.number not in used]
    if idle:
        yield Finding(
            "the graph of the generator, which no backward uses",
            Cost(),
            "with torch.no_grad():    # around generator(noise) in the discriminator's step",
            keeps=max(call.saved for call in idle),  # of a loop, one after the other
        )


# ---- shares ------------------------------------------------------------------------------------


def loss_arithmetic(ledger: Ledger) -> Cost:
    """What is neither a network's nor an optimizer's."""
    return ledger.where(lambda o: o.place.part == REST)


def loss_and_penalty(ledger: Ledger) -> Cost:
    """The loss arithmetic, the second order, and the forwards that a penalty differentiates: what
    fused losses and penalties can make faster, and what Amdahl's law therefore speaks of."""
    calls = ledger.differentiated
    return ledger.where(lambda o: o.place.part in (REST, SECOND) or o.place.call in calls)


def _device(target: Target) -> torch.device:
    modules = [*target.discriminators, *target.generators]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return parameters[0].device if parameters else torch.device("cpu")


def peak_bytes(target: Target) -> int:
    """Of one more step."""
    return observe(target.step, _device(target)).peak_bytes


def step_seconds(target: Target) -> float:
    """Of the step as it is, with nobody watching."""
    clock = timing.clock_of(_device(target))
    work: Callable[[], object] = target.step
    return statistics.median(clock.seconds_per_call(work, 1) for _ in range(TIMED_STEPS))
