"""Real calls of the native ops, taken down as they happen, by argument name.

So tests of the ops themselves need not repeat the schemas: they check, or spoil, what the
package really passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from oracle import draw
from torch.utils._python_dispatch import TorchDispatchMode

from ganloss_fast import ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment


class Call(NamedTuple):
    op: torch._ops.OpOverload
    arguments: dict[str, object]

    @property
    def name(self) -> str:
        return self.op._schema.name.removeprefix("ganloss_fast::")

    def __call__(self, **changed: object) -> object:
        return self.op(**{**self.arguments, **changed})


def detached(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.detach()
    return [detached(item) for item in value] if isinstance(value, (list, tuple)) else value


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "ganloss_fast":
            names = [argument.name for argument in function._schema.arguments]
            given = dict(zip(names, args)) | (kwargs or {})
            self.calls.append(Call(function, {n: detached(given[n]) for n in names}))
        return function(*args, **(kwargs or {}))


def recorded(compute: Callable[[], object]) -> list[Call]:
    """The calls of native ops that a computation makes."""
    with _Recorder() as recorder:
        compute()
    return recorder.calls


def both_orders_of_a_loss() -> None:
    """multi_tensor_loss with every kind of operand, its backward and its double backward."""
    pair, single, other = (draw(3, 4).requires_grad_() for _ in range(3))
    mean = draw().requires_grad_()
    segments = [
        Segment(pair, terms.softplus(1.0), 0.7, other, torch.rand(3, 4)),
        Segment(single, terms.squared(0.3), 1.1, mean),
        Segment(draw(5, dtype=torch.bfloat16), terms.hinge(1.0, 1.0)),
    ]
    outputs = ops.multi_tensor_loss(segments, with_statistics=True)
    inputs = [pair, single, other, mean]
    loss = outputs.total + outputs.values.square().sum()
    gradients = torch.autograd.grad(loss, inputs, create_graph=True)
    torch.autograd.grad(sum(g.square().sum() for g in gradients), inputs)


def both_orders_of_a_penalty() -> None:
    """interpolate, norm_penalty, its backward and its double backward."""
    real, fake, alpha = draw(3, 4).requires_grad_(), draw(3, 4).requires_grad_(), torch.rand(3)
    gradient = ops.interpolate(real, fake, alpha).square()
    penalty, _ = ops.norm_penalty(gradient, "two_sided", 1.0, 10.0)
    (first,) = torch.autograd.grad(penalty, real, create_graph=True)
    torch.autograd.grad(first.square().sum(), (real, fake))


def noise() -> None:
    """perturb."""
    ops.perturb(draw(3, 4), 0.5, torch.tensor(7))


def one_call_of_each_op() -> dict[str, Call]:
    computations = (both_orders_of_a_loss, both_orders_of_a_penalty, noise)
    calls = [call for computation in computations for call in recorded(computation)]
    return {call.name: call for call in calls}
