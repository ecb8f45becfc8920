"""Drop-in for ``tensorflow_gan.losses.wargs``: its functions and defaults, on torch tensors.

Names, arguments, order and defaults are TF-GAN's without ``scope``, ``loss_collection`` and
``add_summaries``, which are TensorFlow's; give ``reduction`` by its name. Beware of two defaults:
``label_smoothing=0.25`` of the discriminators is on, and smooths to 0.875, as TensorFlow's rule is
``1 - label_smoothing / 2``.

Weights are numbers, 0-d tensors, or tensors with as many dimensions as the outputs. No gradient
flows to them. By default a loss is a sum divided by the number of weights that are not zero, and 0
where all are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import check_number, check_tensor
from ganloss_fast.compat._tf_weights import (
    BY_NONZERO_WEIGHTS,
    Weights,
    weighted_elements,
    weighted_loss,
)
from ganloss_fast.compat._toolkits import check_pair
from ganloss_fast.losses.table import BCE, Hinge, LeastSquares, Loss, Wasserstein
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment
from ganloss_fast.penalties.gradient_penalty import gradient_penalty
from ganloss_fast.penalties.table import WGANGP

__all__ = [
    "acgan_discriminator_loss",
    "acgan_generator_loss",
    "combine_adversarial_loss",
    "cycle_consistency_loss",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "minimax_discriminator_loss",
    "minimax_generator_loss",
    "modified_discriminator_loss",
    "modified_generator_loss",
    "mutual_information_penalty",
    "wasserstein_discriminator_loss",
    "wasserstein_generator_loss",
    "wasserstein_gradient_penalty",
    "wasserstein_hinge_discriminator_loss",
    "wasserstein_hinge_generator_loss",
]


def _both_sides(
    outputs: tuple[object, object],
    losses: tuple[Loss, Loss],
    weights: tuple[Weights, Weights],
    reduction: str,
    scale: float = 1.0,
) -> Tensor:
    """The discriminator's loss of (real, generated), each weighted and reduced for itself."""
    real = check_tensor("discriminator_real_outputs", outputs[0])
    fake = check_tensor("discriminator_gen_outputs", outputs[1])
    return weighted_loss(
        reduction,
        (losses[0].segments("real", [real], scale), weights[0]),
        (losses[1].segments("fake", [fake], scale), weights[1]),
    )


# ---- Wasserstein -------------------------------------------------------------------------------


def wasserstein_generator_loss(
    discriminator_gen_outputs: Tensor, weights: Weights = 1.0, reduction: str = BY_NONZERO_WEIGHTS
) -> Tensor:
    """``-f`` (Arjovsky et al., 2017)."""
    fake = check_tensor("discriminator_gen_outputs", discriminator_gen_outputs)
    return weighted_loss(reduction, (Wasserstein().segments("generator", [fake], 1.0), weights))


wasserstein_hinge_generator_loss = wasserstein_generator_loss


def wasserstein_discriminator_loss(
    discriminator_real_outputs: Tensor,
    discriminator_gen_outputs: Tensor,
    real_weights: Weights = 1.0,
    generated_weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``f - r``, each side weighted and reduced."""
    outputs = discriminator_real_outputs, discriminator_gen_outputs
    loss = Wasserstein()
    return _both_sides(outputs, (loss, loss), (real_weights, generated_weights), reduction)


def wasserstein_hinge_discriminator_loss(
    discriminator_real_outputs: Tensor,
    discriminator_gen_outputs: Tensor,
    real_weights: Weights = 1.0,
    generated_weights: Weights = 1.0,
    real_hinge: float = 1.0,
    generated_hinge: float = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``max(0, real_hinge - r) + max(0, generated_hinge + f)`` (Miyato et al., 2018)."""
    outputs = discriminator_real_outputs, discriminator_gen_outputs
    losses = Hinge(margin=real_hinge), Hinge(margin=generated_hinge)
    return _both_sides(outputs, losses, (real_weights, generated_weights), reduction)


def wasserstein_gradient_penalty(
    real_data: Tensor,
    generated_data: Tensor,
    generator_inputs: Any,
    discriminator_fn: Callable[..., Any],
    discriminator_scope: Any = None,
    epsilon: float = 1e-10,
    target: float = 1.0,
    one_sided: bool = False,
    weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``(sqrt(|g|^2 + epsilon) / target - 1)^2`` (Gulrajani et al., 2017); lambda is yours.

    ``discriminator_fn`` is called with (samples, ``generator_inputs``); of a tuple the first is
    taken. The share drawn for each sample is that of the generated one. ``discriminator_scope`` is
    TensorFlow's and not used.
    """
    target = check_number("target", target)
    shape = (real_data.shape[0],)
    share = torch.rand(shape, device=real_data.device, dtype=torch.float32)

    def critic(samples: Tensor) -> Any:
        outputs = discriminator_fn(samples, generator_inputs)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    penalty = functools.partial(
        gradient_penalty, critic, real_data, generated_data, alpha=(1 - share).to(real_data.dtype)
    )
    options: dict[str, Any] = {"target": target, "one_sided": one_sided, "eps": epsilon}
    asked = WGANGP(1.0 / target**2, **options)
    if not isinstance(weights, Tensor) and weights == 1.0 and reduction == BY_NONZERO_WEIGHTS:
        return penalty(asked)
    values = penalty(WGANGP(1.0 / target**2, **options, reduction="none"))
    return weighted_elements(reduction, values, weights)


# ---- cross-entropy -----------------------------------------------------------------------------


def minimax_discriminator_loss(
    discriminator_real_outputs: Tensor,
    discriminator_gen_outputs: Tensor,
    label_smoothing: float = 0.25,
    real_weights: Weights = 1.0,
    generated_weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``bce(r, 1 - label_smoothing / 2) + bce(f, 0)`` (Goodfellow et al., 2014)."""
    outputs = discriminator_real_outputs, discriminator_gen_outputs
    loss = BCE(real_label=1.0 - check_number("label_smoothing", label_smoothing) / 2)
    return _both_sides(outputs, (loss, loss), (real_weights, generated_weights), reduction)


def modified_discriminator_loss(
    discriminator_real_outputs: Tensor,
    discriminator_gen_outputs: Tensor,
    label_smoothing: float = 0.25,
    real_weights: Weights = 1.0,
    generated_weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """:func:`minimax_discriminator_loss`."""
    return minimax_discriminator_loss(
        discriminator_real_outputs,
        discriminator_gen_outputs,
        label_smoothing,
        real_weights,
        generated_weights,
        reduction,
    )


def minimax_generator_loss(
    discriminator_gen_outputs: Tensor,
    label_smoothing: float = 0.0,
    weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``-bce(f, 0)`` less the constant that TF-GAN's real logits of 1 add: 0.3133."""
    fake = check_tensor("discriminator_gen_outputs", discriminator_gen_outputs)
    return -minimax_discriminator_loss(
        torch.ones_like(fake), fake, label_smoothing, weights, weights, reduction
    )


def modified_generator_loss(
    discriminator_gen_outputs: Tensor,
    label_smoothing: float = 0.0,
    weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``bce(f, 1 - label_smoothing / 2)``: the non-saturating loss."""
    fake = check_tensor("discriminator_gen_outputs", discriminator_gen_outputs)
    loss = BCE(generator_label=1.0 - check_number("label_smoothing", label_smoothing) / 2)
    return weighted_loss(reduction, (loss.segments("generator", [fake], 1.0), weights))


# ---- least squares -----------------------------------------------------------------------------


def least_squares_generator_loss(
    discriminator_gen_outputs: Tensor,
    real_label: float = 1,
    weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``(f - real_label)^2 / 2`` (Mao et al., 2017)."""
    fake = check_tensor("discriminator_gen_outputs", discriminator_gen_outputs)
    loss = LeastSquares(generator_label=real_label)
    return weighted_loss(reduction, (loss.segments("generator", [fake], 0.5), weights))


def least_squares_discriminator_loss(
    discriminator_real_outputs: Tensor,
    discriminator_gen_outputs: Tensor,
    real_label: float = 1,
    fake_label: float = 0,
    real_weights: Weights = 1.0,
    generated_weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``(r - real_label)^2 / 2 + (f - fake_label)^2 / 2``."""
    outputs = discriminator_real_outputs, discriminator_gen_outputs
    loss = LeastSquares(real_label=real_label, fake_label=fake_label)
    return _both_sides(
        outputs, (loss, loss), (real_weights, generated_weights), reduction, scale=0.5
    )


# ---- classes and codes; plain PyTorch ----------------------------------------------------------


def _class_losses(logits: Tensor, one_hot_labels: Tensor, label_smoothing: float) -> Tensor:
    return torch.nn.functional.cross_entropy(
        logits, one_hot_labels.to(logits.dtype), reduction="none", label_smoothing=label_smoothing
    )


def acgan_discriminator_loss(
    discriminator_real_classification_logits: Tensor,
    discriminator_gen_classification_logits: Tensor,
    one_hot_labels: Tensor,
    label_smoothing: float = 0.0,
    real_weights: Weights = 1.0,
    generated_weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """Softmax cross-entropy of both sides (Odena et al., 2017); only that of real is smoothed."""
    real = _class_losses(discriminator_real_classification_logits, one_hot_labels, label_smoothing)
    fake = _class_losses(discriminator_gen_classification_logits, one_hot_labels, 0.0)
    return weighted_elements(reduction, fake, generated_weights) + weighted_elements(
        reduction, real, real_weights
    )


def acgan_generator_loss(
    discriminator_gen_classification_logits: Tensor,
    one_hot_labels: Tensor,
    weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """Softmax cross-entropy of generated samples."""
    losses = _class_losses(discriminator_gen_classification_logits, one_hot_labels, 0.0)
    return weighted_elements(reduction, losses, weights)


def mutual_information_penalty(
    structured_generator_inputs: Sequence[Tensor],
    predicted_distributions: Sequence[Any],
    weights: Weights = 1.0,
    reduction: str = BY_NONZERO_WEIGHTS,
) -> Tensor:
    """Minus the mean log-likelihood of the codes (InfoGAN; Chen et al., 2016)."""
    if len(structured_generator_inputs) != len(predicted_distributions):
        raise ValueError(
            f"predicted_distributions: expected {len(structured_generator_inputs)}, one for each "
            f"of structured_generator_inputs, got {len(predicted_distributions)}."
        )
    pairs = zip(predicted_distributions, structured_generator_inputs)
    likelihoods = torch.stack([dist.log_prob(codes).mean() for dist, codes in pairs])
    return -weighted_elements(reduction, likelihoods, weights)


# ---- sums --------------------------------------------------------------------------------------


def _global_norm(loss: Tensor, variables: Sequence[Tensor]) -> Tensor:
    """The norm of a loss's gradient; divided by its largest entry first, as it may overflow."""
    along = torch.ones_like(loss)
    found = torch.autograd.grad(loss, variables, along, retain_graph=True, allow_unused=True)
    gradients = [gradient for gradient in found if gradient is not None]
    if not gradients:
        return loss.new_zeros(())
    largest = torch.stack([gradient.abs().max() for gradient in gradients]).max()
    largest = largest.clamp_min(torch.finfo(largest.dtype).tiny)  # of zeros, TF-GAN's is NaN
    norms = [torch.linalg.vector_norm(gradient / largest) for gradient in gradients]
    norm: Tensor = largest * torch.linalg.vector_norm(torch.stack(norms))
    return norm


def combine_adversarial_loss(
    main_loss: Tensor,
    adversarial_loss: Tensor,
    weight_factor: float | Tensor | None = None,
    gradient_ratio: float | Tensor | None = None,
    gradient_ratio_epsilon: float = 1e-6,
    variables: Sequence[Tensor] | None = None,
) -> Tensor:
    """``main + weight_factor * adversarial``, or with the factor that makes the norms of their
    gradients stand in ``gradient_ratio``. Nothing waits for the device.

    ``variables`` are those that the gradients are of; TF-GAN's default of all there are does not
    exist here.
    """
    if (weight_factor is None) == (gradient_ratio is None):
        raise ValueError("weight_factor, gradient_ratio: give one of them, not both.")
    if main_loss.shape != adversarial_loss.shape:
        main_loss, adversarial_loss = (
            loss.reshape(loss.shape[0], -1).mean(1) for loss in (main_loss, adversarial_loss)
        )
    if weight_factor is None:
        assert gradient_ratio is not None
        if not variables:
            raise ValueError("variables: gradient_ratio needs them, for example the last layer's.")
        main, adversarial = (
            _global_norm(loss, variables) for loss in (main_loss, adversarial_loss)
        )
        weight_factor = main / (adversarial + gradient_ratio_epsilon) / gradient_ratio
    elif not isinstance(weight_factor, Tensor) and weight_factor == 0:
        return main_loss
    factor = weight_factor.detach() if isinstance(weight_factor, Tensor) else weight_factor
    return main_loss + factor * adversarial_loss


def cycle_consistency_loss(
    data_x: Tensor,
    reconstructed_data_x: Tensor,
    data_y: Tensor,
    reconstructed_data_y: Tensor,
) -> Tensor:
    """``(E|x - F(G(x))| + E|y - G(F(y))|) / 2`` (Zhu et al., 2017), in one call."""
    pairs = ((data_x, reconstructed_data_x), (data_y, reconstructed_data_y))
    segments = []
    for name, (data, reconstructed) in zip("xy", pairs):
        names = f"data_{name}", f"reconstructed_data_{name}"
        data, reconstructed = check_pair(names, data, reconstructed)
        segments.append(Segment(reconstructed, terms.ABSOLUTE, 0.5, data))
    return ops.multi_tensor_loss(segments).total
