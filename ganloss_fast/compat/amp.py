"""Drop-in for adversarial motion priors: the discriminator losses of skrl, MimicKit, amp-rsl-rl.

skrl, MimicKit, IsaacGymEnvs and ProtoMotions write the loss inside of their trainers:
:func:`motion_prior_loss` is those lines. amp-rsl-rl's are methods of its discriminator; the
functions of the same names take it as their first argument, so that they can be its methods::

    Discriminator.compute_loss = amp.compute_loss
    Discriminator.compute_grad_pen = amp.compute_grad_pen
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganloss_fast import ops
from ganloss_fast.checks import Logits, as_outputs, check_number
from ganloss_fast.losses.adversarial import discriminator_loss, discriminator_side_loss
from ganloss_fast.losses.table import BCE, Loss
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment
from ganloss_fast.penalties.gradient_penalty import gradient_penalty, r1_penalty
from ganloss_fast.penalties.shared_backward import logits_and_penalty
from ganloss_fast.penalties.table import R1, WGANGP, NormPenalty

__all__ = [
    "MotionPriorLoss",
    "compute_grad_pen",
    "compute_loss",
    "expert_loss",
    "motion_prior_loss",
    "policy_loss",
    "prediction_loss",
    "wgan_loss",
]

# ---- skrl, MimicKit, IsaacGymEnvs, ProtoMotions ------------------------------------------------


class MotionPriorLoss(NamedTuple):
    """The loss of a discriminator of motions, and its parts; all on the device."""

    total: Tensor  # [], to call backward on
    prediction: Tensor  # [], with the factor 1/2
    gradient_penalty: Tensor  # [], E[|g|^2], without its scale
    regularization: Tensor  # [], of the weights, with their scales


def _weight_segments(modules: Sequence[nn.Module], scale: float) -> list[Segment]:
    """``scale * sum(w^2)`` of every weight."""
    weights = [module.weight for module in modules]
    return [
        Segment(weight, terms.squared(0.0), scale * weight.numel())
        for weight in weights
        if isinstance(weight, Tensor)
    ]


def prediction_loss(
    agent_logits: Logits, demo_logits: Tensor, loss: Loss | None = None, scale: float = 0.5
) -> Tensor:
    """``(bce(agent, 0) + bce(demo, 1)) / 2``.

    Several tensors of agent logits (the policy's and the replay's) are taken as one, without
    joining them: their mean is over all of them.
    """
    loss = BCE() if loss is None else loss
    agents = as_outputs("agent_logits", agent_logits)
    count = sum(logits.numel() for logits in agents)
    segments = loss.segments("real", as_outputs("demo_logits", demo_logits), scale)
    for logits in agents:
        segments += loss.segments("fake", [logits], scale * logits.numel() / max(count, 1))
    return ops.multi_tensor_loss(segments).total


def motion_prior_loss(
    discriminator: nn.Module,
    agent_logits: Logits,
    demo_logits: Tensor,
    demo_states: Tensor,
    *,
    logit_layer: nn.Module | None = None,
    logit_regularization_scale: float = 0.05,
    gradient_penalty_scale: float = 5.0,
    weight_decay_scale: float = 1e-4,
    loss_scale: float = 5.0,
) -> MotionPriorLoss:
    """The loss of an AMP discriminator (Peng et al., 2021), as skrl and MimicKit compute it.

    .. math:: s \\, [\\tfrac12 (bce(a, 0) + bce(d, 1)) + s_l |w_l|^2 + s_g E\\|\\nabla_x D(x)\\|^2 +
        s_w \\sum |w|^2]

    over the agent's logits ``a`` and those of demonstrations ``d``. The defaults are skrl's.

    Args:
        discriminator: whose linear layers are decayed.
        agent_logits: a tensor, or several: the policy's and the replay's.
        demo_logits: of the demonstrations, one for each.
        demo_states: what they were computed from; they must have required grad before.
        logit_layer: the last layer, whose weight is regularised. None: the last module.
        logit_regularization_scale: ``s_l``.
        gradient_penalty_scale: ``s_g``.
        weight_decay_scale: ``s_w``.
        loss_scale: ``s``.

    Returns:
        :class:`MotionPriorLoss`.

    Raises:
        ValueError: if ``demo_states`` did not require grad, or the logits are not of them.
        TypeError: if the last module has no weight.
    """
    scales = {
        "logit_regularization_scale": logit_regularization_scale,
        "gradient_penalty_scale": gradient_penalty_scale,
        "weight_decay_scale": weight_decay_scale,
        "loss_scale": loss_scale,
    }
    for name, value in scales.items():
        check_number(name, value)
    modules = list(discriminator.modules())
    last = modules[-1] if logit_layer is None else logit_layer
    if not isinstance(getattr(last, "weight", None), Tensor):
        raise TypeError(
            f"logit_layer: expected a layer with a weight, got {type(last).__name__}. Give the "
            "layer that makes the logits."
        )
    linear = [module for module in modules if isinstance(module, nn.Linear)]
    segments = _weight_segments([last], logit_regularization_scale)
    segments += _weight_segments(linear, weight_decay_scale)
    regularization = ops.multi_tensor_loss(segments).total
    shared_logits, penalty = logits_and_penalty(demo_logits, demo_states, NormPenalty(1.0))
    prediction = prediction_loss(agent_logits, shared_logits)
    total = prediction + regularization + gradient_penalty_scale * penalty
    return MotionPriorLoss(
        loss_scale * total, prediction.detach(), penalty.detach(), regularization.detach()
    )


# ---- amp-rsl-rl --------------------------------------------------------------------------------


def _check_loss_type(discriminator: Any) -> str:
    loss_type: str = discriminator.loss_type
    if loss_type not in ("BCEWithLogits", "Wasserstein"):
        raise ValueError(f"loss_type: expected BCEWithLogits or Wasserstein, got {loss_type!r}.")
    return loss_type


def policy_loss(discriminator: Any, discriminator_output: Tensor) -> Tensor:
    """``bce(output, 0)``."""
    return discriminator_side_loss(discriminator_output, False, "bce")


def expert_loss(discriminator: Any, discriminator_output: Tensor) -> Tensor:
    """``bce(output, 1)``."""
    return discriminator_side_loss(discriminator_output, True, "bce")


def wgan_loss(discriminator: Any, policy_d: Tensor, expert_d: Tensor) -> Tensor:
    """``E[tanh(eta p)] - E[tanh(eta e)]``; the tanh is plain PyTorch."""
    eta = discriminator.eta_wgan
    policy, expert = torch.tanh(eta * policy_d), torch.tanh(eta * expert_d)
    return discriminator_loss(expert, policy, "wasserstein")


def _minibatch_deviation(hidden: Tensor) -> Tensor:
    """[B, 1]: the mean over features of their deviation over the batch."""
    if hidden.shape[0] <= 1:
        return hidden.new_zeros((hidden.shape[0], 1))
    deviation = hidden.float().std(dim=0, unbiased=False).mean()
    return deviation.expand(hidden.shape[0], 1).to(hidden.dtype)


def _scores(discriminator: Any) -> Callable[[Tensor], Tensor]:
    """The discriminator with its mini-batch deviation taken as a constant, where it has one."""

    def scores(data: Tensor) -> Tensor:
        hidden = discriminator.trunk(data)
        if getattr(discriminator, "use_minibatch_std", False):
            hidden = torch.cat([hidden, _minibatch_deviation(hidden.detach())], dim=-1)
        result: Tensor = discriminator.linear(hidden)
        return result

    return scores


def compute_grad_pen(
    discriminator: Any,
    expert_states: tuple[Tensor, Tensor],
    policy_states: tuple[Tensor, Tensor],
    lambda_: float = 10,
) -> Tensor:
    """BCE: R1 at the expert's transitions, ``lambda_ / 2 E|g|^2``. Wasserstein: between both,
    ``lambda_ E[(|g| - 1)^2]``."""
    expert = torch.cat(expert_states, -1)
    scores = _scores(discriminator)
    if _check_loss_type(discriminator) == "BCEWithLogits":
        return r1_penalty(scores, expert.detach(), R1(gamma=lambda_))
    policy = torch.cat(policy_states, -1)
    alpha = torch.rand(expert.size(0), 1, device=expert.device).flatten()
    return gradient_penalty(
        scores,
        expert.detach(),
        policy.detach(),
        WGANGP(lambda_),
        alpha=alpha.to(expert.dtype),
    )


def compute_loss(
    discriminator: Any,
    policy_d: Tensor,
    expert_d: Tensor,
    sample_amp_expert: tuple[Tensor, Tensor],
    sample_amp_policy: tuple[Tensor, Tensor],
    lambda_: float = 10,
) -> tuple[Tensor, Tensor]:
    """(loss, penalty), in amp-rsl-rl's order of draws."""
    penalty = compute_grad_pen(discriminator, sample_amp_expert, sample_amp_policy, lambda_)
    if _check_loss_type(discriminator) == "Wasserstein":
        return wgan_loss(discriminator, policy_d, expert_d), penalty
    return prediction_loss(policy_d, expert_d), penalty
