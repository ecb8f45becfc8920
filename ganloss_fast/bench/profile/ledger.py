"""What a watched step consists of: operators, forwards of modules, backward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

D, G = "discriminator", "generator"
FORWARD, OF_INPUT, OF_WEIGHTS, SECOND = (
    "forward",
    "backward to its input",
    "backward to its weights",
    "second order",
)
OPTIMIZER, REST = "optimizer", "losses and the rest"


@dataclass(frozen=True)
class Place:
    """What an operator belongs to; ``call`` is None outside of all modules."""

    part: str
    call: int | None = None


@dataclass
class Call:
    """One forward of a module in the step."""

    side: str  # D, G, or what another network is called
    number: int
    module: int  # its id
    inputs: tuple[Any, ...]  # alike for two forwards of the same samples; empty without samples
    weights: tuple[Any, ...]  # alike as long as nothing moves them
    with_graph: bool
    again: bool = False  # within a backward, for a checkpoint
    random: bool = False  # whether it drew random numbers
    steps_a_norm: bool = False  # of spectral norm, whose every forward in training moves it
    counts_statistics: bool = False  # of a normalisation
    saved: int = 0  # bytes that its graph keeps


@dataclass
class Backward:
    """One run of the engine."""

    number: int
    create_graph: bool
    reached: list[tuple[str, int]] = field(default_factory=list)  # side, operator of a gradient
    used: set[str] = field(default_factory=set)  # sides whose optimizers take something of it


@dataclass
class Operator:
    """Or a part of one: gradients of a convolution's input and of its weights are two."""

    place: Place
    turn: int  # optimizers that stepped before
    backward: int | None
    flops: int = 0
    seconds: float = 0.0
    written: int = 0  # bytes
    sources: frozenset[int] = frozenset()  # operators whose results it reads
    useful: bool = True  # whether an optimizer, or the user, sees something of it
    dead: bool = False  # computes zeros from zeros, in the second order
    again: bool = False  # walks back a loss that autograd.grad walked back before


@dataclass
class Cost:
    flops: int = 0
    seconds: float = 0.0
    written: int = 0
    operators: int = 0

    def add(self, other: Operator) -> None:
        self.flops += other.flops
        self.seconds += other.seconds
        self.written += other.written
        self.operators += 1


def cost_of(operators: Iterable[Operator]) -> Cost:
    cost = Cost()
    for operator in operators:
        cost.add(operator)
    return cost


@dataclass
class Ledger:
    operators: list[Operator] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    backwards: list[Backward] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)  # whose optimizer stepped
    uncounted: set[str] = field(default_factory=set)

    def total(self) -> Cost:
        return cost_of(self.operators)

    def where(self, chosen: Callable[[Operator], bool]) -> Cost:
        return cost_of(filter(chosen, self.operators))

    def side(self, operator: Operator) -> str | None:
        """Whose operator it is."""
        call = operator.place.call
        return None if call is None else self.calls[call].side

    def owner(self, operator: Operator) -> str:
        """In whose step it runs: whose optimizer takes what its backward found, or steps next."""
        if operator.backward is not None and operator.place.part != OPTIMIZER:
            used = self.backwards[operator.backward].used
            if used:
                return " and ".join(sorted(used))
        return self.turns[operator.turn] if operator.turn < len(self.turns) else "neither"

    def owner_of_call(self, call: Call) -> str:
        """In whose step a forward runs: that of the first backward that makes use of it."""
        own = [o for o in self.operators if o.place.call == call.number]
        walked = [o for o in own if o.backward is not None and o.useful]
        return self.owner(walked[0] if walked else own[0]) if own else "neither"

    @property
    def differentiated(self) -> set[int | None]:
        """Calls whose gradient has a graph: those of penalties."""
        return {
            o.place.call
            for o in self.operators
            if o.backward is not None and self.backwards[o.backward].create_graph
        } - {None}
