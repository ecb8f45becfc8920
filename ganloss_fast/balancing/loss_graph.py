"""What the autograd graph says of losses and their reconstruction, before anything is computed.

A loss may reach the model through the reconstruction alone: what it reaches beside it would get no
gradient. Two losses may have nodes in common: then the first must leave them what they saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from ganloss_fast.checks import warn_caller
from ganloss_fast.graph_cut.rows import Node, walk


def nodes_behind(tensor: Tensor) -> set[Node]:
    """Its own node, and all that a backward from it would run."""
    return set(walk([get_gradient_edge(tensor)[0]]))


def nodes_down_to(loss: Tensor, reconstruction: Tensor) -> tuple[set[Node], bool]:
    """The nodes of a loss as far as the reconstruction, and whether that was met."""
    target = tuple(get_gradient_edge(reconstruction)[:2])
    nodes: set[Node] = set()
    met = False
    stack: list[Any] = [tuple(get_gradient_edge(loss)[:2])]
    while stack:
        edge = stack.pop()
        if edge == target:
            met = True
        elif edge[0] is not None and edge[0] not in nodes:
            nodes.add(edge[0])
            stack.extend(edge[0].next_functions)
    return nodes, met


def graphs_of(
    losses: Mapping[str, Tensor], reconstruction: Tensor, behind: set[Node]
) -> list[set[Node]]:
    """The nodes of each loss; ``behind`` are those of the model."""
    graphs = []
    for name, loss in losses.items():
        nodes, met = nodes_down_to(loss, reconstruction)
        if not met:
            raise ValueError(
                f"{name}: it does not depend on the reconstruction. Compute it from the very "
                "tensor that is passed as reconstruction, not from a detached or an earlier one; "
                "a loss of the encoder alone belongs into extra_loss."
            )
        beside = nodes & behind
        if beside:
            raise ValueError(
                f"{name}: it reaches the model beside the reconstruction, by "
                f"{_described(beside.pop())}, and that gradient would be left out. Pass what does "
                "not go through the reconstruction, such as a codebook loss, as extra_loss."
            )
        graphs.append(nodes)
    return graphs


def is_leaf(node: Node) -> bool:
    return hasattr(node, "variable")


def _described(node: Node) -> str:
    return f"a leaf of shape {list(node.variable.shape)}" if is_leaf(node) else node.name()


def is_needed_later(nodes: set[Node], later: Sequence[set[Node]]) -> bool:
    """Whether a later backward runs nodes that this one would leave without what they saved."""
    return any(not is_leaf(node) for others in later for node in nodes & others)


def warn_of_compiled_layer(last_layer: Tensor, behind: set[Node]) -> None:
    """A compiled backward is one block: who asks for one gradient runs all of it."""
    leaf = get_gradient_edge(last_layer)[0]
    for node in behind:
        is_compiled = node.name().startswith("CompiledFunction")
        if is_compiled and any(following is leaf for following, _ in node.next_functions):
            warn_caller(
                "last_layer: it belongs to a compiled region, whose whole backward runs once for "
                "each loss and once more. Leave it out: compile the layers before the last one, "
                "and call that in eager."
            )
            return
