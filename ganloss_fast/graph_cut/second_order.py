"""The graph cut: exact gradient penalties without the second-order branch that carries zeros."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ganloss_fast import backends
from ganloss_fast.checks import check_choice, check_tensor, describe
from ganloss_fast.graph_cut import hooks
from ganloss_fast.graph_cut.rows import proven_row, walk
from ganloss_fast.graph_cut.stand_ins import proven_stand_in

GraphCut = Literal["auto", "fast", "off"]
ZeroGrads = Literal["stock", "all", "none"]

GRAPH_CUT_CHOICES: tuple[GraphCut, ...] = ("auto", "fast", "off")
ZERO_GRADS_CHOICES = ("stock", "all", "none")  # in the order of csrc/graph_cut/graph_cut.h

if backends.HAS_NATIVE:
    from ganloss_fast import _C

    _C.set_row_lookup(proven_row)
    _C.set_stand_in_proof(proven_stand_in)


class CutResult(NamedTuple):
    """``grads`` as they went in, with a shorter history; how many edges are cut, nodes seen, and
    whether one of these belongs to torch.compile, which has no second order."""

    grads: list[Tensor]
    cut: int
    nodes: int
    compiled: bool


def cut(
    grads: Sequence[Tensor],
    zero_grads: ZeroGrads = "stock",
    parameters: Sequence[Tensor] = (),
    hidden: Sequence[Tensor] = (),
    fast_weights: bool = False,
) -> CutResult:
    """The cut as the penalties call it: nothing is checked.

    ``parameters`` get zeros under ``"all"``; ``hidden`` are leaves that no caller can see.
    ``fast_weights`` needs the extension, and is left out where there is none.
    """
    if backends.HAS_NATIVE:
        mode = ZERO_GRADS_CHOICES.index(zero_grads)
        return CutResult(*_C.cut_second_order(grads, mode, parameters, hidden, fast_weights))
    return CutResult(*hooks.cut_second_order(grads, zero_grads, parameters, hidden))


def parameters_of(critic: Callable[..., Any] | None, outputs: Sequence[Tensor]) -> list[Tensor]:
    """What ``zero_grads="all"`` means by every parameter: those of the module, if the critic is
    one, and every leaf that its outputs were computed from."""
    found: dict[int, Tensor] = {}
    if isinstance(critic, torch.nn.Module):
        found.update((id(p), p) for p in critic.parameters() if p.requires_grad)
    for node in walk([output.grad_fn for output in outputs]):
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.setdefault(id(leaf), leaf)
    return list(found.values())


def with_zeros(
    grads: Sequence[Tensor], parameters: Sequence[Tensor], hidden: Sequence[Tensor]
) -> list[Tensor]:
    """The gradients as they are, whose backward also gives an explicit zero to ``parameters``."""
    hidden_ids = {id(tensor) for tensor in hidden}
    filled = [p for p in parameters if p.requires_grad and id(p) not in hidden_ids]
    return hooks.with_zeros(grads, filled)


def finite_signal(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """0-d: 1 if every element is finite, else NaN.

    Stock autograd multiplies the zeros that the cut removes with the activations, so an inf
    there makes NaN gradients, and a GradScaler skips the step. A penalty multiplied with this
    does the same, also where a critic masks the inf out of all gradients, and not where it hides
    one that only arose inside.
    """
    signal = torch.ones((), dtype=dtype, device=tensors[0].device)
    for tensor in tensors:
        # 0 * x, not 0 * sum: a sum of finite values can overflow.
        signal = signal + (tensor.detach() * 0).sum().to(dtype)
    return signal


def is_known_nonfinite(signal: Tensor) -> bool:
    """Whether the signal says NaN, on a device where looking at it does not wait: then the graph
    can stay as it is, and the gradients are those of stock autograd in every case."""
    return type(signal) is Tensor and signal.device.type == "cpu" and signal.item() != 1.0


def are_known_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all elements are seen to be finite where looking does not wait: their sum is. (A sum
    that overflows says nothing.)"""
    return all(
        type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and math.isfinite(tensor.detach().sum().item())
        for tensor in tensors
    )


def cut_second_order(
    grads: Tensor | Sequence[Tensor],
    *,
    zero_grads: ZeroGrads = "stock",
    parameters: Sequence[Tensor] = (),
    values: Sequence[Tensor] = (),
    fast_weights: bool = False,
) -> Tensor | list[Tensor]:
    """Makes your own gradient penalty cheaper, without changing it: one added line.

    After ``torch.autograd.grad(..., create_graph=True)``, removes the edges of the gradient's
    graph that carry exact zeros because the operation is piecewise linear (ReLU, LeakyReLU,
    PReLU, pooling, padding). With the native extension, convolutions with a constant weight (a
    blur) no longer compute its gradient, which stock autograd does group by group. A penalty on a
    convolutional critic then costs 4 times a forward pass where stock autograd spends 6, and every
    gradient is equal to the bit::

        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        gradient = cut_second_order(gradient)                      # the added line
        penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    Smooth activations and normalisation layers have a genuine second-order branch, which stays;
    :func:`diagnose` shows which layers those are. The edges are removed in place. That is safe
    for everything else that uses the graph, except a backward that runs in another thread at
    that moment.

    Args:
        grads: gradients with respect to a critic's inputs, taken with ``create_graph=True``.
        zero_grads: which parameters get an explicit zero where nothing but zeros would have
            arrived. ``"stock"``: those that stock autograd gives one (biases, mostly), so that
            optimizers behave the same; ``"all"``: also everything in ``parameters``, which
            ``DistributedDataParallel`` needs where the penalty is the whole loss; ``"none"``.
        parameters: the parameters that ``"all"`` means.
        values: tensors of which an inf or NaN must reach the gradients, as it does in stock
            autograd, to make a ``GradScaler`` skip the step. Give the critic's outputs and
            inputs.
        fast_weights: also compute the weight gradients of convolutions with the kernel of an
            ordinary backward, where that is the faster one: on a GPU always, on a CPU by shapes.
            Stock autograd computes them as a convolution for each group whose kernel has the size
            of an image, often several times slower. Equal to rounding instead of to the bit. What
            ``graph_cut="fast"`` means; without the native extension it changes nothing.

    Returns:
        The same gradients, with the zeros in their history: a tensor for a tensor, else a list.

    Raises:
        TypeError: if an argument is not a tensor or a sequence of tensors.
        ValueError: if no gradient has a graph: ``create_graph=True`` was left out.
        RuntimeError: inside torch.compile.
    """
    check_choice("zero_grads", zero_grads, ZERO_GRADS_CHOICES)
    if torch.compiler.is_compiling():
        raise RuntimeError(
            "cut_second_order: there is no autograd graph to edit while compiling. Call it outside "
            "of the compiled function, or compile gradient_penalty with "
            "options=ganloss_fast.compile_options()."
        )
    single = isinstance(grads, Tensor)
    if not single and not isinstance(grads, (list, tuple)):
        raise TypeError(
            f"grads: expected a tensor or a sequence of tensors, got {describe(grads)}."
        )
    listed = [check_tensor("grads", grad) for grad in ([grads] if single else grads)]
    if not any(grad.requires_grad for grad in listed):
        raise ValueError(
            "grads: expected gradients with a graph, but none requires grad. Take them with "
            "torch.autograd.grad(..., create_graph=True), outside torch.no_grad."
        )
    result = cut(listed, zero_grads, list(parameters), fast_weights=fast_weights).grads
    if values:
        result = [grad * finite_signal(values, grad.dtype) for grad in result]
    return result[0] if single else result
