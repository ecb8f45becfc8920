"""Logits and a penalty of one critic, whose backward computes each weight's gradient once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganloss_fast.checks import Weight
from ganloss_fast.graph_cut import second_order, shared_backward
from ganloss_fast.ops.terms import compute_dtype
from ganloss_fast.penalties.critic.call import CriticCall, Differentiation, InvScale
from ganloss_fast.penalties.critic.gradient import (
    InputGradients,
    directions_of,
    refuse_unsuitable,
    scales,
    stock_gradients,
    unscaled,
    with_graph_cut,
)
from ganloss_fast.penalties.gradient_penalty import UNRELATED, logits_given
from ganloss_fast.penalties.penalty_call import Mask, penalty_call
from ganloss_fast.penalties.points import Samples
from ganloss_fast.penalties.table import PenaltyLike, resolve_penalty


class LogitsAndPenalty(NamedTuple):
    """Logits as they were given, with another history, and the penalty on their gradient."""

    logits: Any  # a tensor, or a list of one, as they were given
    penalty: Tensor


class SharedGradients(NamedTuple):
    """Gradients as :func:`gradients_of` gives them. ``logits`` share their graph, or are None and
    ``refusal`` says why they cannot."""

    gradients: InputGradients
    logits: Tensor | None
    refusal: str = ""


def shared_gradients(
    call: CriticCall,
    logits: Sequence[Tensor],
    points: Sequence[Tensor],
    unrelated: str | None = None,
) -> SharedGradients:
    """Gradients of logits that were computed from ``points``, and the logits on the same graph."""
    refuse_unsuitable(logits, points)
    scale, inverse = scales(call.inv_scale, points[0])
    directions = directions_of(call, logits, scale)

    def alone(refusal: str, gradients: tuple[Tensor, ...] | None = None) -> SharedGradients:
        if gradients is None:
            gradients = stock_gradients(call, logits, points, directions, unrelated)
        cut = with_graph_cut(call, logits, points, gradients, inverse)
        return SharedGradients(cut, None, refusal)

    refusal = _asked_otherwise(call.how) or shared_backward.why_not(logits, points)
    if refusal:
        return alone(refusal)
    shared = shared_backward.begin(logits[0], points)
    record = shared_backward.record_of(shared)
    record.calls += 1
    if refusal := shared.refusal or record.refusal:
        return alone(refusal)
    signal = None
    if not second_order.are_known_finite([*logits, *points]):
        signal = second_order.finite_signal([*logits, *points], compute_dtype(points[0].dtype))
    if signal is not None and second_order.is_known_nonfinite(signal):
        return alone("there is an inf or NaN")
    refusal, rows_signal = shared_backward.rows_signal(shared)
    if refusal:
        return alone(refusal)

    gradients = tuple(shared.gradients(directions[0]))
    if refusal := shared_backward.look(shared, record, logits[0], directions[0]):
        return alone(refusal, gradients)
    # A main loss's gradient is divided by what a logit counted in the inner gradient.
    factors = [factor for factor in (inverse, rows_signal) if factor is not None]
    pair = shared.join(gradients, torch.stack(factors).prod() if factors else None)
    if pair is None:
        record.refusal = shared.refusal
        return alone(shared.refusal, gradients)
    return SharedGradients(InputGradients(unscaled(pair[1:], inverse), signal), pair[0])


def _asked_otherwise(how: Differentiation) -> str:
    if how.graph_cut == "off":
        return 'graph_cut="off" leaves the graph alone'
    if how.zero_grads != "stock":
        return f"zero_grads={how.zero_grads!r} is for penalties alone"
    return ""


def logits_and_penalty(
    logits: Tensor | Sequence[Tensor],
    inputs: Samples,
    penalty: PenaltyLike = "r1",
    *,
    weight: Weight | None = None,
    mask: Mask = None,
    inv_scale: InvScale = None,
    how: Differentiation | None = None,
) -> LogitsAndPenalty:
    """Logits that a step has already, and their penalty, for one backward of both at less cost.

    A step that uses the same logits in its main loss and in R1 or R2 (R3GAN, StarGAN v2,
    adversarial motion priors) costs 6 times a forward pass in stock autograd. With the pair that
    this returns it costs 4: the main loss's way through the critic is the penalty's inner
    gradient, scaled sample by sample, and each weight's two gradients are computed as one::

        real.requires_grad_()
        fake.requires_grad_()
        real_logits, r1 = logits_and_penalty(critic(real), real, "r1")
        fake_logits, r2 = logits_and_penalty(critic(fake), fake, "r2")
        (discriminator_loss(real_logits, fake_logits, "bce") + r1 + r2).backward()

    Values and the inner gradient are those of :func:`penalty_from_logits`, to the bit; gradients
    of parameters are equal to rounding. Sum both losses into one backward: two of them compute the
    weights' gradients twice.

    It takes a critic with one logit for each sample, whose samples do not meet, of convolutions,
    linear layers, (leaky) ReLU, PReLU, pooling, spectral or weight norm, embeddings and the like.
    For any other (normalisation, SiLU, logits of patches, several outputs) it returns the same
    values on stock autograd's graph: right, and slower. So it does without the native extension.
    :func:`diagnose` says which it is, and why.

    Args:
        logits: the critic's output with its graph; of several critics, call this for each.
        inputs: what it was computed from: tensors that required grad before the critic ran.
        penalty: what is asked of the gradient, such as ``R1(gamma=1.0)``.
        inv_scale: mixed precision with float16; see :func:`gradient_penalty`.

    See :func:`penalty_from_logits` for the other arguments.

    Returns:
        :class:`LogitsAndPenalty`: the logits, to be used in place of those that were given, and the
        penalty, 0-d.

    Raises:
        As :func:`penalty_from_logits`. NotImplementedError: in a backward with
        ``create_graph=True``; :func:`penalty_from_logits` has that third derivative.
    """
    asked = penalty_call(resolve_penalty(penalty).penalty, weight, mask)
    call, outputs, points = logits_given(logits, inputs, inv_scale=inv_scale, how=how)
    shared = shared_gradients(call, outputs, points, UNRELATED)
    value = shared.gradients.signalled(asked(shared.gradients.gradients))
    if shared.logits is None:
        return LogitsAndPenalty(logits, value)
    is_single = isinstance(logits, Tensor)
    return LogitsAndPenalty(shared.logits if is_single else [shared.logits], value)
