"""Whose each node of autograd's graph is, and what reaches it in a backward.

A node hears from each that sends it a gradient, of what kind that is: fresh; dead, a zero of the
second order; or again, of a loss that autograd.grad walked back before. Where nothing fresh
arrives, the node's work can be left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ganloss_fast import backends
from ganloss_fast.bench.profile.flow import tensors_in
from ganloss_fast.bench.profile.ledger import REST, SECOND, Place
from ganloss_fast.graph_cut.hooks import Gradients, row_of
from ganloss_fast.graph_cut.rows import Node, walk
from ganloss_fast.graph_cut.stand_ins import STAND_INS, proven_stand_in

FRESH, DEAD, AGAIN = "fresh", "dead", "again"
_DOUBLE_CONVOLUTION = "ConvolutionBackwardBackward0"


@dataclass(frozen=True)
class Frame:
    """What runs now."""

    place: Place
    kind: str = FRESH
    constant: Tensor | None = None  # a filter that learns nothing, in its second order


def nodes_of(tensors: Iterable[Any]) -> list[Node]:
    """Their nodes; ``tensors`` may be gradient edges too."""
    found = [t.grad_fn if isinstance(t, Tensor) else getattr(t, "node", None) for t in tensors]
    return [node for node in found if node is not None]


def is_leaf(node: Node) -> bool:
    return hasattr(node, "variable")


_RAW = "_raw_saved_"  # how autograd names what it keeps, still packed


def _saved(node: Node) -> list[Tensor]:
    """What it keeps for the backward; not what a hook packed: to unpack a checkpoint is to run its
    forward again."""
    found: list[Any] = []
    names = dir(node)
    for name in (name for name in names if name.startswith(_RAW)):
        try:
            raw = getattr(node, name)
            packed = raw if isinstance(raw, tuple) else (raw,)
            if all(each.unpack_hook is None for each in packed):
                plain = name.removeprefix("_raw")  # saved_tensors of a torch.autograd.Function
                found.append(getattr(node, plain if plain in names else plain[1:]))
        except RuntimeError:  # freed
            continue
    return tensors_in(found)


class Graph:
    """Labels nodes, and keeps the stack of what runs."""

    def __init__(self, stack: list[Frame]) -> None:
        self.stack = stack
        self.nodes: list[Node] = []
        self.numbers: dict[Node, int] = {}
        self.places: list[Place] = []
        self.second: set[Node] = set()  # in the graph of a gradient
        self.asked: set[Node] = set()  # scalars that autograd.grad walked back, and not for good
        self.arrived: list[dict[int, set[str]]] = []  # for each backward that runs
        self.last = Place(REST)
        stand_in = next(s.node for s in STAND_INS if not s.learns)
        self.drops_constants = backends.HAS_NATIVE and proven_stand_in(stand_in)

    def label(self, roots: Sequence[Node], place: Place, behind: Iterable[Node] = ()) -> list[Node]:
        """Books what runs in the nodes that are new, down to those in ``behind``, to a place."""
        new = [n for n in walk(roots, behind) if n not in self.numbers and not is_leaf(n)]
        for node in new:
            number = self.numbers[node] = len(self.nodes)
            self.nodes.append(node)
            self.places.append(place)
            node.register_prehook(lambda _, number=number: self._enter(number))
            node.register_hook(lambda i, o, number=number: self._leave(number, i, o))
        return new

    def saved_bytes(self, nodes: Iterable[Node], without: set[int]) -> int:
        """That the nodes keep alive; ``without`` are storages of parameters."""
        found = {}
        for node in nodes:
            for tensor in _saved(node):
                if tensor.layout is torch.strided:
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
        return sum(size for pointer, size in found.items() if pointer not in without)

    # ---- in a backward -------------------------------------------------------------------------

    def start(self, roots: Sequence[Any]) -> None:
        self.label(nodes_of(roots), self.stack[-1].place if self.stack else Place(REST))
        self.arrived.append({})

    def end(self, roots: Sequence[Any], gradients: Sequence[Any], results: Sequence[Any]) -> None:
        """``results``: gradients that have a graph; ``gradients``: those that went in."""
        self.arrived.pop()
        before = set(walk(nodes_of(roots))) | set(walk(nodes_of(gradients)))
        second = nodes_of(results)
        self.second.update(walk(second))
        self.label(second, Place(SECOND), before)

    def remember(self, roots: Sequence[Any]) -> None:
        """That autograd.grad walked these back, and their graph stays."""
        if len(roots) == 1 and isinstance(roots[0], Tensor) and roots[0].numel() == 1:
            self.asked.update(nodes_of(roots))

    def _enter(self, number: int) -> None:
        kinds = self.arrived[-1].get(number, {FRESH}) if self.arrived else {FRESH}
        kind = next(iter(kinds)) if len(kinds) == 1 else FRESH
        node, constant = self.nodes[number], None
        if node in self.asked and kind == FRESH:
            kind = AGAIN
        if node in self.second and self._has_constant_filter(node):
            constant = node._saved_weight
        self.stack.append(Frame(self.places[number], kind, constant))

    def _has_constant_filter(self, node: Node) -> bool:
        """Whether the graph cut has a cheaper node for it."""
        if not self.drops_constants or node.name() != _DOUBLE_CONVOLUTION:
            return False
        return node.next_functions[2][0] is None

    def _leave(self, number: int, to: Gradients, incoming: Gradients) -> None:
        frame = self.stack.pop()
        self.last = frame.place
        if not self.arrived:
            return
        node, arrived = self.nodes[number], self.arrived[-1]
        row = row_of(node) if node in self.second else None
        if row is not None and row.idle_input >= 0 and incoming[row.idle_input] is not None:
            row = None
        for k, (target, _) in enumerate(node.next_functions):
            if k < len(to) and to[k] is not None and target in self.numbers:
                kind = DEAD if row is not None and row.edge == k else frame.kind
                arrived.setdefault(self.numbers[target], set()).add(kind)

    def clear(self) -> None:
        """Lets go of the graph, and of what it keeps."""
        self.stack.clear()
        self.second.clear()
        self.asked.clear()
        self.nodes.clear()
        self.numbers.clear()
