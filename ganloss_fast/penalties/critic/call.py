"""How a critic is called, how its gradient is computed, and what counts as its logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from ganloss_fast.checks import (
    Value,
    check_choice,
    check_integer,
    check_number,
    check_tensor,
    describe,
)
from ganloss_fast.graph_cut.second_order import (
    GRAPH_CUT_CHOICES,
    ZERO_GRADS_CHOICES,
    GraphCut,
    ZeroGrads,
)
from ganloss_fast.penalties.critic.arguments import BatchArgs, check_batch_args

LogitReduction = Literal["sum", "mean"]
InvScale = Any  # float, 0-d Tensor or torch.amp.GradScaler
CriticArgs = Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Differentiation(Value):
    """How a penalty computes the gradient of a critic. Its value does not depend on it.

    Args:
        graph_cut: ``"auto"`` removes what carries exact zeros: gradients equal to the bit.
            ``"fast"`` also computes the weight gradients of convolutions by the faster kernel,
            equal to rounding. ``"off"`` leaves the autograd graph alone. See
            :func:`ganloss_fast.cut_second_order`.
        zero_grads: ``"stock"``, ``"all"`` or ``"none"``; see
            :func:`ganloss_fast.cut_second_order`. ``"all"`` repairs a penalty-only backward under
            ``DistributedDataParallel``.
        chunk_size: samples at a time: bounds the memory to that of so many samples. The
            gradients are then computed in this call and are those of the whole batch up to
            rounding; only a first-order backward follows, and one with ``create_graph=True``
            raises. Hooks of parameters run in that backward, once. Nothing is computed twice, but
            calls 1, 2, 4, 8, ... with a critic object add two steps on a slice, which ask of rows
            drawn from the batch whether samples interact (an interaction that is zero to second
            order there, or between other rows, is not seen); a lambda made for every step pays
            that every time. Hooks of tensors inside the critic run for every slice. Not under
            FSDP. Spectral norms iterate once, and stand still for the other slices and for
            checkpoints. For ``reduction`` ``"mean"`` and ``"sum"``, not ``norm="batch"``.
        batch_args: with ``chunk_size``, which of the critic's further arguments hold one row for
            each sample and are sliced with the batch: positions and names of ``critic_args``.
            None: every tensor and array with as many rows as there are samples, inside lists,
            tuples and dicts too. A list of as many other entries (captions) has to be named, or
            left out: ``()`` names none.

    Raises:
        ValueError, TypeError: when it is made, if an option is not one of these.
    """

    graph_cut: GraphCut = "auto"
    zero_grads: ZeroGrads = "stock"
    chunk_size: int | None = None
    batch_args: BatchArgs = None

    def __post_init__(self) -> None:
        check_choice("graph_cut", self.graph_cut, GRAPH_CUT_CHOICES)
        check_choice("zero_grads", self.zero_grads, ZERO_GRADS_CHOICES)
        if self.graph_cut == "off" and self.zero_grads != "stock":
            raise ValueError(
                f"zero_grads: {self.zero_grads!r} cannot be combined with graph_cut='off', which "
                "leaves zeros to stock autograd; use graph_cut='auto'."
            )
        if self.chunk_size is not None:
            object.__setattr__(self, "chunk_size", check_integer("chunk_size", self.chunk_size))
        if self.batch_args is not None and not isinstance(self.batch_args, (list, tuple)):
            raise TypeError(
                "batch_args: expected a tuple of positions and names of critic_args, got "
                f"{describe(self.batch_args)}."
            )


@dataclass(frozen=True, eq=False)
class Call:
    """A critic and how it is called, for what a plain function does not say.

    Args:
        critic: called as ``critic(x, *args, **kwargs)``.
        args: further arguments, such as labels; those that change from step to step go into the
            penalty's ``critic_args`` instead.
        kwargs: arguments by name.
        output_weights: factors of the outputs of a critic that returns a list, or a tuple.
        logit_reduction: ``"sum"``, as everybody does, or ``"mean"`` over each output's logits.
    """

    critic: Callable[..., Any]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    output_weights: Sequence[float] | None = None
    logit_reduction: LogitReduction = "sum"

    def __post_init__(self) -> None:
        if not callable(self.critic):
            raise TypeError(
                f"critic: expected a function or a module, got {describe(self.critic)}."
            )
        if not isinstance(self.args, (list, tuple)):
            raise TypeError(f"args: expected a tuple or a list, got {describe(self.args)}.")
        if not isinstance(self.kwargs, Mapping):
            raise TypeError(f"kwargs: expected a dict, got {describe(self.kwargs)}.")
        check_output_weights(self.output_weights)
        check_choice("logit_reduction", self.logit_reduction, ("sum", "mean"))

    def with_arguments(self, critic_args: CriticArgs) -> Call:
        """With the arguments of one step, where it has none of its own."""
        if not isinstance(critic_args, (list, tuple, Mapping)):
            raise TypeError(
                "critic_args: expected a tuple of arguments, or a dict of arguments by name, got "
                f"{describe(critic_args)}."
            )
        if not critic_args:
            return self
        if self.args or self.kwargs:
            raise ValueError("critic_args: the Call has arguments already; leave one of them out.")
        if isinstance(critic_args, Mapping):
            return replace(self, kwargs=critic_args)
        return replace(self, args=critic_args)


Critic = Callable[..., Any] | Call


def check_output_weights(weights: object) -> None:
    if weights is None:
        return
    if not isinstance(weights, (list, tuple)):
        raise TypeError(
            "output_weights: expected a list of numbers, one for each output of the critic, got "
            f"{describe(weights)}."
        )
    for k, weight in enumerate(weights):
        check_number(f"output_weights[{k}]", weight)


@dataclass(frozen=True, eq=False)
class CriticCall:
    """A critic with everything about one call but its inputs."""

    critic: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    output_weights: Sequence[float] | None
    logit_reduction: LogitReduction
    inv_scale: InvScale
    how: Differentiation  # without a default: Dynamo of torch 2.11 cannot take a value for one

    def __post_init__(self) -> None:
        check_batch_args(self.args, self.kwargs, self.how.batch_args)

    def outputs(self, points: Sequence[Tensor]) -> list[Tensor]:
        value = self.critic(*points, *self.args, **self.kwargs)
        return as_logits(value, "critic", self.output_weights is not None)


def differentiation(how: Differentiation | None) -> Differentiation:
    """The argument ``how``, checked."""
    if how is None:
        return Differentiation()
    if not isinstance(how, Differentiation):
        raise TypeError(
            f"how: expected Differentiation(graph_cut=..., chunk_size=...), got {describe(how)}."
        )
    return how


def critic_call(
    critic: Critic,
    critic_args: CriticArgs = (),
    inv_scale: InvScale = None,
    how: Differentiation | None = None,
) -> CriticCall:
    """The arguments of a public function, checked."""
    how = differentiation(how)
    call = critic if isinstance(critic, Call) else Call(critic)
    call = call.with_arguments(critic_args)
    return CriticCall(
        call.critic,
        call.args,
        call.kwargs,
        call.output_weights,
        call.logit_reduction,
        inv_scale,
        how,
    )


def as_logits(value: object, name: str = "critic", weighted: bool = False) -> list[Tensor]:
    """Outputs of a critic, or the argument ``name``, as a list; refuses what has no rule.

    A tuple is taken only where its entries are ``weighted``: often it is (features, logits), and
    summing both would be a wrong penalty and no error.
    """
    came, advice = "got", "Take the logits alone, for example logits[-1]."
    if name == "critic":
        came, advice = "it returned", "Wrap the critic, for example lambda x: critic(x)[-1]."
    if value is None:
        raise TypeError(f"{name}: {came} None; is a return statement missing?")
    if isinstance(value, tuple) and not weighted:
        raise TypeError(
            f"{name}: {came} {describe(value)}. If all of it is logits, make it a list or pass "
            f"output_weights. If not: {advice}"
        )
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    if not listed:
        raise ValueError(f"{name}: {came} an empty sequence.")
    logits: list[Tensor] = []
    for k, item in enumerate(listed):
        where = came if not isinstance(value, (list, tuple)) else f"output {k} is"
        if not isinstance(item, Tensor):
            raise TypeError(
                f"{name}: expected a tensor of logits, or a flat list of them, but {where} "
                f"{describe(item)}. {advice}"
            )
        if not item.dtype.is_floating_point:
            raise TypeError(
                f"{name}: expected floating-point logits, but {where} {describe(item)}. The "
                "gradient with respect to the input needs them."
            )
        logits.append(check_tensor(name, item))
    return logits
