"""``mmagic/models/losses/gan_loss.py``: the criterion, its penalties, and path length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganloss_fast.checks import Weight, check_weight
from ganloss_fast.compat import basicsr
from ganloss_fast.compat._criteria import (
    Mode,
    as_logits,
    check_mode,
    cross_entropy,
    least_squares,
    side_loss,
)
from ganloss_fast.compat._filters import separably_filtered
from ganloss_fast.compat._penalties import SQUARED_NORM, path_lengths, penalty_between
from ganloss_fast.compat._processes import mean_over_processes
from ganloss_fast.losses.adversarial import discriminator_side_loss
from ganloss_fast.losses.table import Hinge, LeastSquares, Loss, Side, Wasserstein
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment, compute_dtype
from ganloss_fast.penalties.critic.call import Critic, InvScale
from ganloss_fast.penalties.gradient_penalty import gradient_penalty
from ganloss_fast.penalties.table import PENALTIES, WGANGP, NormPenalty

# ---- the criterion -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LeastAbsolute(Loss):
    """``E[|D - t|]``, the mode ``"l1"``."""

    name: ClassVar[str] = "l1"
    real_label: float = 1.0
    fake_label: float = 0.0

    def summands(self, side: Side) -> None:
        return None  # |z| has no parameter: the label is an operand

    def segments(self, side: Side, outputs: list[Tensor], scale: float) -> list[Segment]:
        label = self.fake_label if side == "fake" else self.real_label
        return [
            Segment(t, terms.ABSOLUTE, scale, t.new_full((), label, dtype=compute_dtype(t.dtype)))
            for t in outputs
        ]


class GaussianBlur(torch.nn.Module):
    """A Gaussian filter over every channel of [B, C, H, W], with zeros around the image.

    Args:
        kernel_size: extent in rows and in columns, both odd.
        sigma: standard deviation in rows and in columns.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int] = (71, 71),
        sigma: tuple[float, float] = (10.0, 10.0),
    ) -> None:
        super().__init__()
        if any(size % 2 == 0 or size <= 0 for size in kernel_size):
            raise ValueError(f"kernel_size: expected odd positive integers, got {kernel_size}.")
        self.kernel_size = kernel_size
        self.sigma = sigma

    def _weights(self, axis: int, device: torch.device) -> Tensor:
        size = self.kernel_size[axis]
        x = torch.arange(size, device=device, dtype=torch.float64) - size // 2
        return torch.exp(-0.5 * (x / self.sigma[axis]).square())

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ValueError(f"x: expected shape [B, C, H, W], got {list(x.shape)}.")
        return separably_filtered(x, self._weights(0, x.device), self._weights(1, x.device))


class GANLoss(basicsr.GANLoss):
    """The criterion of mmagic: :class:`ganloss_fast.compat.basicsr.GANLoss` with the modes
    ``"l1"``, ``E[|D - t|]``, and ``"smgan"``.

    ``"smgan"`` (AOT-GAN; Zeng et al., 2022) is least squares, where generated samples get a map of
    labels in the discriminator's loss: the blurred mask of what was painted. Logits of another
    height and width than the mask are resized to it. (In the generator's loss mmagic multiplies
    the *mean* by ``mask / mean(mask)``, whose own mean is 1: the mask has no effect there.)

    Args:
        gan_type: ``"vanilla"``, ``"lsgan"``, ``"wgan"``, ``"hinge"``, ``"l1"`` or ``"smgan"``.
        real_label_val: label of real samples, and of fake ones in the generator's loss.
        fake_label_val: label of fake samples.
        loss_weight: factor of the generator's loss; a discriminator's has none.
    """

    MODES: ClassVar[dict[str, Mode]] = {
        "vanilla": cross_entropy,
        "lsgan": least_squares,
        "wgan": Wasserstein(),
        "hinge": Hinge(),
        "l1": lambda real, fake: LeastAbsolute(float(real), float(fake)),
        "smgan": least_squares,
    }

    def __init__(
        self,
        gan_type: str,
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        loss_weight: Weight = 1.0,
    ) -> None:
        super().__init__(gan_type, real_label_val, fake_label_val, loss_weight)
        if gan_type == "smgan":
            self.gaussian_blur = GaussianBlur()

    def forward(
        self,
        input: Tensor,
        target_is_real: bool,
        is_disc: bool = False,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The loss of one side, 0-d, times ``loss_weight`` unless ``is_disc``.

        Args:
            input: logits.
            target_is_real: which side.
            is_disc: whether this is the discriminator's loss.
            mask: for ``"smgan"``: [B, 1, H, W], 1 where something was painted.
        """
        logits = as_logits("input", input)
        if self.gan_type != "smgan":
            return self._side(logits, target_is_real, is_disc)
        if mask is None:
            raise ValueError("mask: gan_type='smgan' needs the mask of what was painted, got None.")
        if logits.shape[2:] != mask.shape[2:]:
            logits = torch.nn.functional.interpolate(
                logits, size=mask.shape[2:], mode="bilinear", align_corners=True
            )
        if not is_disc or target_is_real:
            return self._side(logits, target_is_real, is_disc)
        with torch.no_grad():
            label_map = self.gaussian_blur(mask)
        return side_loss(logits, False, LeastSquares(fake_label=label_map))


# ---- penalties ---------------------------------------------------------------------------------


def _of_norm_mode(
    norm_mode: str, pixel: NormPenalty, sample: NormPenalty, mask: Tensor | None
) -> NormPenalty:
    """The penalty of a pixel's norm over its channels, or of a sample's norm."""
    check_mode("norm_mode", norm_mode, ("pixel", "HWC"))
    penalty = pixel if norm_mode == "pixel" else sample
    return penalty if mask is None else replace(penalty, normalize_by_mask=True)


def gradient_penalty_loss(
    discriminator: Critic,
    real_data: Tensor,
    fake_data: Tensor,
    mask: Tensor | None = None,
    norm_mode: str = "pixel",
    *,
    loss_weight: Weight = 1.0,
) -> Tensor:
    """The gradient penalty of mmagic, without a weight.

    .. math:: pixel: E_{i, p}[(\\|g_{i, :, p}\\|_2 - 1)^2] \\quad HWC: E_i[(\\|g_i\\|_2 - 1)^2]

    with alpha [B, 1, 1, 1] drawn on the CPU. No gradient reaches the samples.

    Args:
        discriminator: the critic.
        real_data: real samples [B, C, H, W].
        fake_data: generated samples, alike in shape.
        mask: multiplied with the gradients; the result is divided by its mean.
        norm_mode: ``"pixel"`` or ``"HWC"``.
        loss_weight: factor of the result; not in mmagic, where it is applied outside.

    Raises:
        ganloss_fast.compat.UnknownMode: for another ``norm_mode``.
    """
    penalty = _of_norm_mode(norm_mode, PENALTIES["mmagic"].penalty, WGANGP(1.0), mask)
    return penalty_between(discriminator, real_data, fake_data, penalty, loss_weight, mask)


class GradientPenaltyLoss(torch.nn.Module):
    """``loss_weight`` times :func:`gradient_penalty_loss` per pixel, called with
    (discriminator, real_data, fake_data, mask=None)."""

    def __init__(self, loss_weight: Weight = 1.0) -> None:
        super().__init__()
        self.loss_weight = check_weight("loss_weight", loss_weight)

    def forward(
        self,
        discriminator: Critic,
        real_data: Tensor,
        fake_data: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        return gradient_penalty_loss(
            discriminator, real_data, fake_data, mask, loss_weight=self.loss_weight
        )


def r1_gradient_penalty_loss(
    discriminator: Critic,
    real_data: Tensor,
    mask: Tensor | None = None,
    norm_mode: str = "pixel",
    loss_scaler: InvScale = None,
    use_apex_amp: bool = False,
    *,
    loss_weight: Weight = 1.0,
) -> Tensor:
    """R1 of mmagic, without a factor: the discriminator runs once more.

    .. math:: pixel: E_{i, p}\\|g_{i, :, p}\\|_2^2 = \\frac{1}{B H W} \\sum g^2 \\quad
        HWC: E_i\\|g_i\\|_2^2

    Args:
        discriminator: the critic.
        real_data: real samples [B, C, H, W].
        mask: multiplied with the gradients; the result is divided by its mean.
        norm_mode: ``"pixel"`` or ``"HWC"``.
        loss_scaler: a ``GradScaler``, or None.
        use_apex_amp: apex is not supported; pass ``loss_scaler``.
        loss_weight: factor of the result; not in mmagic, where it is applied outside.

    Raises:
        ganloss_fast.compat.UnknownMode: for another ``norm_mode``.
        ValueError: for ``use_apex_amp``.
    """
    _refuse_apex(use_apex_amp)
    penalty = _of_norm_mode(norm_mode, PENALTIES["mmagic-r1"].penalty, SQUARED_NORM, mask)
    return gradient_penalty(
        discriminator,
        real_data,
        penalty=penalty,
        at="real",
        weight=loss_weight,
        mask=mask,
        inv_scale=loss_scaler,
    )


def disc_shift_loss(pred: Tensor) -> Tensor:
    """``pred^2``, element by element: keeps logits near 0 (Karras et al., 2018)."""
    squares: Tensor = discriminator_side_loss(pred, False, "least_squares", reduction="none")
    return squares


class DiscShiftLoss(torch.nn.Module):
    """``loss_weight * E[x^2]`` of the logits that it is called with."""

    def __init__(self, loss_weight: Weight = 0.1) -> None:
        super().__init__()
        self.loss_weight = check_weight("loss_weight", loss_weight)

    def forward(self, x: Tensor) -> Tensor:
        return discriminator_side_loss(x, False, "least_squares", weight=self.loss_weight)


# ---- the generator -----------------------------------------------------------------------------


def gen_path_regularizer(
    generator: Callable[..., Any],
    num_batches: int,
    mean_path_length: Tensor,
    pl_batch_shrink: int = 1,
    decay: float = 0.01,
    weight: Weight = 1.0,
    pl_batch_size: int | None = None,
    sync_mean_buffer: bool = False,
    loss_scaler: InvScale = None,
    use_apex_amp: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Path length regularisation (StyleGAN2; Karras et al., 2020).

    Args:
        generator: called as ``generator(None, num_batches=n, return_latents=True)``; returns a
            dict with ``"fake_img"`` [B, C, H, W] and ``"latent"`` [B, layers, D].
        num_batches: batch size.
        mean_path_length: 0-d tensor, the moving average.
        pl_batch_shrink: divides the batch size.
        decay: share of this batch in the average.
        weight: factor of the penalty.
        pl_batch_size: batch size, in place of the other two.
        sync_mean_buffer: average the new mean over processes, ahead of the penalty about it.
        loss_scaler: a ``GradScaler``, or None.
        use_apex_amp: apex is not supported; pass ``loss_scaler``.

    Returns:
        The penalty; the new moving average, detached; the lengths [B], detached. **This order is
        mmagic's own.**
    """
    _refuse_apex(use_apex_amp)
    if pl_batch_shrink > 1:
        num_batches = max(1, num_batches // pl_batch_shrink)
    if pl_batch_size is not None:
        num_batches = pl_batch_size
    outputs = generator(None, num_batches=num_batches, return_latents=True)
    images, latents = outputs["fake_img"], outputs["latent"]
    found = path_lengths(images, latents, mean_path_length, loss_scaler)
    average = found.average(decay)
    if sync_mean_buffer:
        average = mean_over_processes(average)
    result = found.about(average, weight)
    return result.penalty, result.mean, result.lengths


def _refuse_apex(use_apex_amp: bool) -> None:
    if use_apex_amp:
        raise ValueError("use_apex_amp: apex is not supported; pass a GradScaler as loss_scaler.")
