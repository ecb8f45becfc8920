"""The balanced backward: every loss back to the reconstruction, and one backward of the model.

Trainers of VQGANs and of neural codecs weigh losses by the norms of their gradients, at the last
layer of the decoder or at the reconstruction itself. The losses reach the model through the
reconstruction alone: from there, norms are cheap, and the sum of all gradients is walked back once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ganloss_fast._torch import run_by_dynamo
from ganloss_fast.balancing.loss_graph import (
    graphs_of,
    is_needed_later,
    nodes_behind,
    nodes_down_to,
    warn_of_compiled_layer,
)
from ganloss_fast.balancing.rules import AdaptiveWeight, GradientShares, NormAverages, Rule
from ganloss_fast.checks import Weight, check_loss, check_tensor, check_weight, describe, quoted
from ganloss_fast.losses.distributed import check_process_group
from ganloss_fast.ops.terms import compute_dtype

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Losses = Mapping[str, Tensor] | Sequence[Tensor]
Weights = Mapping[str, Weight] | Sequence[Weight]


class Balance(NamedTuple):
    """What :func:`balanced_backward` found for L losses: detached, and on their device."""

    weights: Tensor  # [L], with which the losses entered the backward
    norms: Tensor  # [L], of their gradients in this step
    total: Tensor  # [], the weighted sum of the losses, and extra_loss
    averages: NormAverages | None  # for the next step; None without GradientShares


# ---- what the arguments may be -----------------------------------------------------------------


@run_by_dynamo
def _refuse_to_be_traced() -> None:
    raise RuntimeError(
        "balanced_backward: torch.compile cannot trace a backward. Call it outside of the "
        "compiled function, which may return the losses."
    )


def _named_losses(losses: object) -> dict[str, Tensor]:
    """The losses by the name that errors call them."""
    if isinstance(losses, Mapping):
        named = {f"losses[{quoted(name)}]": loss for name, loss in losses.items()}
    elif isinstance(losses, (list, tuple)):
        named = {f"losses[{k}]": loss for k, loss in enumerate(losses)}
    else:
        raise TypeError(
            "losses: expected a sequence of tensors of one element, or a mapping of names to "
            f"them, got {describe(losses)}."
        )
    if not named:
        raise ValueError("losses: expected at least one loss, got none.")
    for name, loss in named.items():
        if not check_loss(name, loss).requires_grad:
            raise ValueError(f"{name}: it requires no grad. Leave out what is constant.")
    return named


def _wanted_weights(losses: Losses, weights: object) -> list[Weight]:
    """One for each loss, in their order."""
    if weights is None:
        return [1.0] * len(losses)
    if isinstance(losses, Mapping) and isinstance(weights, Mapping):
        for name in losses:
            if name not in weights:
                raise ValueError(f"weights: there is none for the loss {quoted(name)}.")
        return [check_weight(f"weights[{quoted(name)}]", weights[name]) for name in losses]
    if isinstance(losses, Mapping) or not isinstance(weights, (list, tuple)):
        raise TypeError(
            f"weights: expected them structured like losses, {describe(losses)}, got "
            f"{describe(weights)}."
        )
    if len(weights) != len(losses):
        raise ValueError(f"weights: expected {len(losses)}, one for each loss, got {len(weights)}.")
    return [check_weight(f"weights[{k}]", weight) for k, weight in enumerate(weights)]


def _check_reconstruction(reconstruction: object) -> None:
    tensor = check_tensor("reconstruction", reconstruction)
    if not tensor.requires_grad:
        raise ValueError(
            "reconstruction: it requires no grad. Pass what the model returned, not a detached "
            "copy of it, and call the model with gradients on."
        )
    if tensor._backward_hooks:
        raise ValueError(
            "reconstruction: it has hooks, which would run for each loss and once more for their "
            "sum. Register them on a tensor before it."
        )


def _checked_rule(rule: object, wanted: list[Weight], last_layer: Tensor | None) -> Rule:
    if rule is None:
        return AdaptiveWeight()
    if not isinstance(rule, (AdaptiveWeight, GradientShares)):
        advice = f" Create one: {rule.__name__}()." if isinstance(rule, type) else ""
        raise TypeError(
            f"rule: expected AdaptiveWeight() or GradientShares(), got {describe(rule)}.{advice}"
        )
    if isinstance(rule, GradientShares):
        if rule.per_sample and last_layer is not None:
            raise ValueError(
                "last_layer: its gradient has no samples. Leave it out, or take "
                "GradientShares(per_sample=False)."
            )
        has_whole = any(isinstance(weight, Tensor) or weight > 0 for weight in wanted)
        if rule.rescale and not has_whole:
            raise ValueError("weights: expected one above 0 at least, to share a norm between.")
    return rule


def _checked_averages(rule: Rule, averages: object, count: int) -> NormAverages | None:
    if averages is None:
        return None
    if not isinstance(rule, GradientShares):
        raise ValueError("averages: only GradientShares has them; leave them out.")
    if not isinstance(averages, NormAverages):
        raise TypeError(
            f"averages: expected balance.averages of the step before, got {describe(averages)}."
        )
    if averages.total.shape != (count,):
        raise ValueError(
            f"averages: they are of {averages.total.numel()} losses, and this step has {count}. "
            "Pass the same losses in every step."
        )
    return averages


# ---- gradients ---------------------------------------------------------------------------------


def _keeps(
    losses: Mapping[str, Tensor],
    reconstruction: Tensor,
    last_layer: Tensor | None,
    extra_loss: Tensor | None,
) -> list[bool]:
    """Whether the graph of a loss is needed after its own backward. Checks the graph on the way."""
    behind = nodes_behind(reconstruction)
    graphs = graphs_of(losses, reconstruction, behind)
    if last_layer is not None:
        warn_of_compiled_layer(last_layer, behind)
    if extra_loss is not None:
        graphs.append(nodes_down_to(extra_loss, reconstruction)[0])
    return [is_needed_later(graphs[k], graphs[k + 1 :]) for k in range(len(losses))]


def _start(loss: Tensor, scale: Tensor | None) -> Tensor | None:
    """The gradient that a backward of the loss begins with; None: 1."""
    return None if scale is None else scale.to(loss.dtype).expand_as(loss)


def _at_last_layer(reconstruction: Tensor, last_layer: Tensor, gradient: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(
        reconstruction, last_layer, gradient, retain_graph=True, allow_unused=True
    )
    if found is None:
        raise ValueError(
            "last_layer: the reconstruction does not depend on it. Pass the parameter itself, of a "
            "parametrised layer the one it is made of. Where FSDP shards the model there is none "
            "to pass: leave last_layer out, and norms are taken at the reconstruction."
        )
    return found


def _weighted_sum(gradients: Sequence[Tensor | None], weights: Tensor) -> Tensor | None:
    """In the dtype of the gradients; None if there is none."""
    total: Tensor | None = None
    for gradient, weight in zip(gradients, weights.unbind()):
        if gradient is not None:
            part = gradient * weight.to(gradient.dtype)
            total = part if total is None else total.add_(part)
    return total


# ---- norms and weights -------------------------------------------------------------------------


def _norm(gradient: Tensor, per_sample: bool) -> Tensor:
    dtype = compute_dtype(gradient.dtype)
    if per_sample and gradient.dim() > 1:
        norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=dtype)
        return norms.mean()
    norm: Tensor = torch.linalg.vector_norm(gradient, dtype=dtype)
    return norm


def _mean_over_processes(norms: Tensor, samples: int, group: ProcessGroup) -> Tensor:
    """Each process counts by its samples."""
    sums = torch.cat([norms * samples, torch.full_like(norms[:1], samples)])
    torch.distributed.all_reduce(sums, group=group)
    return sums[:-1] / sums[-1]


def _weigh(
    gradients: Sequence[Tensor],
    wanted: Sequence[Weight],
    rule: Rule,
    averages: NormAverages | None,
    scale: Tensor | None,
    group: ProcessGroup | None,
) -> tuple[Tensor, Tensor, NormAverages | None]:
    """Weights [L] and norms [L] of the gradients, and the averages with these norms."""
    per_sample = isinstance(rule, GradientShares) and rule.per_sample
    norms = torch.stack([_norm(gradient, per_sample) for gradient in gradients])
    if scale is not None:
        norms = norms / scale
    counted = norms
    if isinstance(rule, GradientShares):
        averages = averages or NormAverages(torch.zeros_like(norms), torch.zeros_like(norms))
        averages = averages.updated(norms, rule.decay)
        counted = averages.means()
    if group is not None:
        counted = _mean_over_processes(counted, len(gradients[0]) if per_sample else 1, group)
    return rule.weigh(counted, wanted), norms, averages


def _total(losses: Sequence[Tensor], weights: Tensor, extra_loss: Tensor | None) -> Tensor:
    values = torch.stack([loss.to(weights.dtype).sum() for loss in losses])
    total = (weights * values).sum()
    return total if extra_loss is None else total + extra_loss.sum()


class Walked(NamedTuple):
    """What the walks from L losses to their inputs found: weights [L] and norms [L], for every
    input the weighted sum of its gradients, and the averages with these norms."""

    weights: Tensor
    norms: Tensor
    sums: list[Tensor | None]
    averages: NormAverages | None


def walk_back(
    losses: Sequence[Tensor],
    inputs: Sequence[Tensor],
    last_layer: Tensor | None,
    wanted: Sequence[Weight],
    rule: Rule,
    averages: NormAverages | None,
    scale: Tensor | None,
    group: ProcessGroup | None,
    keeps: Sequence[bool],
) -> Walked:
    """From each loss to the inputs, of which the reconstruction is the first, and no further.
    ``keeps`` says of each loss whether its graph is needed afterwards."""
    found = [
        torch.autograd.grad(loss, inputs, _start(loss, scale), retain_graph=keep, allow_unused=True)
        for loss, keep in zip(losses, keeps)
    ]
    by_input = list(zip(*found))
    measured: Sequence[Tensor] = by_input[0]
    if last_layer is not None:
        measured = [_at_last_layer(inputs[0], last_layer, gradient) for gradient in measured]
    with torch.no_grad():
        weights, norms, averages = _weigh(measured, wanted, rule, averages, scale, group)
        sums = [_weighted_sum(gradients, weights) for gradients in by_input]
    return Walked(weights, norms, sums, averages)


def balanced_backward(
    losses: Losses,
    reconstruction: Tensor,
    last_layer: Tensor | None = None,
    *,
    weights: Weights | None = None,
    rule: Rule | None = None,
    averages: NormAverages | None = None,
    extra_loss: Tensor | None = None,
    loss_parameters: Sequence[Tensor] = (),
    process_group: ProcessGroup | None = None,
    scaler: torch.amp.GradScaler | None = None,
    retain_graph: bool = False,
) -> Balance:
    """The backward of several losses of one reconstruction, weighed by their gradients' norms.

    .. math:: \\nabla \\Big( \\sum_k \\lambda_k L_k + L_{extra} \\Big) \\quad \\text{with }
        \\lambda \\text{ from the norms of } g_k = \\partial L_k / \\partial \\, last\\ layer

    In place of ``calculate_adaptive_weight(nll, g, last_layer)`` and a backward of the sum, which
    walk through the perceptual network and the discriminator twice::

        balance = gf.balanced_backward(
            [nll, g], reconstruction, decoder.last.weight, weights=[1.0, 0.5], extra_loss=codebook
        )

    Every loss is walked back to the reconstruction once, and no further. The gradients of the
    last layer start there; the weights are computed on the device; then the model has its one
    backward, which adds into ``.grad`` and runs the hooks of DistributedDataParallel, as that of
    the sum would. What the losses depend on beside the reconstruction, above all the weights of
    the discriminator, gets no gradient and costs nothing.

    Args:
        losses: tensors of one element, in a sequence or by name. :class:`AdaptiveWeight` measures
            the others by the first.
        reconstruction: what the model returned, and all losses were computed from.
        last_layer: the weight at which norms are taken, as for VQGAN. None: they are those at the
            reconstruction itself, as in EnCodec.
        weights: ``w`` of the rule, structured like ``losses``; numbers or 0-d tensors, 1 each.
        rule: :class:`AdaptiveWeight` (by default) or :class:`GradientShares`.
        averages: for :class:`GradientShares`: ``balance.averages`` of the step before.
        extra_loss: what is added as it is, and takes part in the same backward: what does not go
            through the reconstruction (a codebook, commitment or KL loss), and a loss that does
            and is not weighed.
        loss_parameters: parameters of the losses themselves that learn, such as ``logvar`` of
            latent-diffusion. They get their gradient of the weighted sum.
        process_group: averages the norms over its processes. None: each weighs for itself, as
            VQGAN trainers do under DistributedDataParallel.
        scaler: the GradScaler of float16 training. The losses are passed unscaled; the backward
            is scaled, the norms are not.
        retain_graph: keep the graphs of losses and model, for instance to use the logits of the
            fake samples again: see :func:`discriminator_backward`.

    Returns:
        :class:`Balance`: weights, norms, total and averages. Nothing waits for the device.

    Raises:
        ValueError: if a loss does not depend on the reconstruction or reaches the model beside
            it, if the reconstruction does not depend on ``last_layer``, or if arguments do not
            fit each other.
        TypeError: if an argument is of another kind.
        RuntimeError: inside torch.compile.
    """
    if torch.compiler.is_compiling():
        _refuse_to_be_traced()
    named = _named_losses(losses)
    wanted = _wanted_weights(losses, weights)
    _check_reconstruction(reconstruction)
    rule = _checked_rule(rule, wanted, last_layer)
    averages = _checked_averages(rule, averages, len(named))
    if last_layer is not None:
        check_tensor("last_layer", last_layer)
    if extra_loss is not None:
        check_loss("extra_loss", extra_loss)
    if process_group is not None:
        check_process_group(process_group)
    learning = extra_loss if extra_loss is not None and extra_loss.requires_grad else None
    keeps = _keeps(named, reconstruction, last_layer, learning)
    scale = None
    if scaler is not None:
        scale = scaler.scale(torch.ones((), device=reconstruction.device))

    values, inputs = list(named.values()), (reconstruction, *loss_parameters)
    walked = walk_back(
        values,
        inputs,
        last_layer,
        wanted,
        rule,
        averages,
        scale,
        process_group,
        keeps=[retain_graph or keep for keep in keeps],
    )
    lambdas, norms, sums, averages = walked
    with torch.no_grad():
        total = _total(values, lambdas, extra_loss)

    # From the reconstruction through the model.
    starts: dict[Tensor, Tensor | None] = {x: s for x, s in zip(inputs, sums) if s is not None}
    if learning is not None:
        starts[learning] = _start(learning, scale)
    torch.autograd.backward(tuple(starts), tuple(starts.values()), retain_graph=retain_graph)
    return Balance(lambdas, norms, total, averages)
