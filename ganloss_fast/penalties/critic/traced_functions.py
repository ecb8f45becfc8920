"""What torch.compile loses of a critic's own derivatives, seen while it traces.

Dynamo traces the backward of an autograd.Function, and the hook of a tensor, with gradients
switched off: under torch.func.grad the value of a penalty is right and part of its gradient is
gone, without a word (pytorch#193279). Both stand in the traced graph as operations of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ganloss_fast._torch import graphs_being_traced, run_by_dynamo

# Named as torch's HigherOrderOperators are; not every release has all of them.
_LOSING = {
    "autograd_function_apply": "an autograd.Function (or a custom op with a derivative of its own)",
    "register_hook": "a tensor with a hook",
}


def _operations(graph: torch.fx.Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.op == "call_function":
            yield getattr(node.target, "__name__", "")


@run_by_dynamo
def count_losing() -> str:
    """How often each stands in the graph that Dynamo is tracing, as a text for comparison."""
    counts = dict.fromkeys(_LOSING, 0)
    for graph in graphs_being_traced():
        for operation in _operations(graph):
            if operation in counts:
                counts[operation] += 1
    return ",".join(str(count) for count in counts.values())


@run_by_dynamo
def refuse_losing(before: str) -> bool:
    """Raises if the critic, traced since ``before``, runs one of them.

    Inside Dynamo rather than in the code that it traces: there it would be caught, and the step
    cut into pieces that lose the same.
    """
    for name, count, now in zip(_LOSING.values(), before.split(","), count_losing().split(",")):
        if count != now:
            raise RuntimeError(
                f"critic: it runs {name}, whose second derivative torch.compile loses in a "
                "penalty. Leave this penalty out of torch.compile, or write the operation with "
                "PyTorch's own."
            )
    return True
