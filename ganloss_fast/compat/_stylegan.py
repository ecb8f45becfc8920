"""What the StyleGAN2 losses of stylegan2-ada-pytorch and stylegan3 share.

They differ in how they call their networks, which a subclass says, and in their signatures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.compat._criteria import check_mode
from ganloss_fast.compat._penalties import SQUARED_NORM, path_length
from ganloss_fast.losses.adversarial import discriminator_side_loss, generator_loss
from ganloss_fast.penalties.gradient_penalty import penalty_from_logits
from ganloss_fast.penalties.shared_backward import logits_and_penalty
from ganloss_fast.penalties.table import NormPenalty

Report = Callable[[str, Tensor], Any] | None
"""Takes a name and a tensor, as ``training_stats.report`` does."""

PHASES = ("Gmain", "Greg", "Gboth", "Dmain", "Dreg", "Dboth")


def style_mixed(
    ws: Tensor, z: Tensor, probability: float, mapping: Callable[[Tensor], Tensor]
) -> Tensor:
    """``ws`` [B, layers, D], of which the layers from a random one on come from other latents."""
    layers, device = ws.shape[1], ws.device
    cutoff = torch.empty([], dtype=torch.int64, device=device).random_(1, layers)
    is_mixed = torch.rand([], device=device) < probability
    cutoff = torch.where(is_mixed, cutoff, layers)
    others = mapping(torch.randn_like(z))
    keep = torch.arange(layers, device=device) < cutoff  # where ws[:, cutoff:] would wait
    return torch.where(keep[:, None], ws, others)


class Reports:
    """Sends statistics to ``report``, and computes none where there is none."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __bool__(self) -> bool:
        return self._report is not None

    def __call__(self, name: str, values: Tensor) -> None:
        assert self._report is not None
        self._report(name, values.detach())

    def logits(self, side: str, logits: Tensor) -> None:
        if self:
            self(f"Loss/scores/{side}", logits)
            self(f"Loss/signs/{side}", logits.detach().sign())


class StyleGAN2Steps:
    """The steps of a phase, each with a backward of its own, as there.

    Networks run through two methods of the subclass:
    ``run_generator(z, c, sync, with_averages) -> (images, ws)`` and
    ``run_discriminator(images, c, sync, with_averages) -> logits``.
    """

    run_generator: Callable[..., tuple[Tensor, Tensor]]
    run_discriminator: Callable[..., Tensor]

    def __init__(
        self,
        device: torch.device | str,
        r1_gamma: float,
        pl_weight: float,
        pl_batch_shrink: int,
        pl_decay: float,
        report: Report,
    ) -> None:
        self.device = device
        self.r1_gamma = r1_gamma
        self.pl_weight = pl_weight
        self.pl_batch_shrink = pl_batch_shrink
        self.pl_decay = pl_decay
        self.pl_mean = torch.zeros([], device=device)
        self.reports = Reports(report)

    def wanted(self, phase: str) -> set[str]:
        """Of "Gmain", "Greg", "Dmain", "Dreg" those that a phase is made of."""
        check_mode("phase", phase, PHASES)
        steps = {f"{phase[0]}main", f"{phase[0]}reg"} if phase.endswith("both") else {phase}
        if self.pl_weight == 0:
            steps -= {"Greg"}
        if self.r1_gamma == 0:
            steps -= {"Dreg"}
        return steps

    def generator_step(self, z: Tensor, c: Tensor, gain: float, sync: bool) -> None:
        """``E[softplus(-f)]``."""
        images, _ = self.run_generator(z, c, sync, False)
        logits = self.run_discriminator(images, c, False, False)
        self.reports.logits("fake", logits)
        if self.reports:
            elements: Any = generator_loss(logits.detach(), "bce", reduction="none")
            self.reports("Loss/G/loss", elements)
        generator_loss(logits, "bce", weight=gain).backward()

    def path_length_step(
        self, z: Tensor, c: Tensor, gain: float, sync: bool, keep_images: bool
    ) -> None:
        """``pl_weight E[(length - mean)^2]`` on a part of the batch."""
        batch = z.shape[0] // self.pl_batch_shrink
        images, ws = self.run_generator(z[:batch], c[:batch], sync, False)
        weight = self.pl_weight * gain
        result = path_length(images, ws, self.pl_mean, self.pl_decay, weight)
        self.pl_mean.copy_(result.mean)
        if self.reports:
            squares = (result.lengths - result.mean).square()
            self.reports("Loss/pl_penalty", squares)
            self.reports("Loss/G/reg", squares * self.pl_weight)
        loss = result.penalty
        if keep_images:  # parameters behind the latents' gradient get a zero, not None
            loss = loss + (images[:, 0, 0, 0] * 0).mean()
        loss.backward()

    def fake_step(self, z: Tensor, c: Tensor, gain: float) -> Tensor | None:
        """``E[softplus(f)]``; gives its elements where they are reported."""
        images, _ = self.run_generator(z, c, False, True)
        logits = self.run_discriminator(images, c, False, True)
        self.reports.logits("fake", logits)
        elements: Any = None
        if self.reports:
            elements = discriminator_side_loss(logits.detach(), False, "bce", reduction="none")
        discriminator_side_loss(logits, False, "bce", weight=gain).backward()
        return elements  # type: ignore[no-any-return]

    def real_step(
        self,
        real_img: Tensor,
        real_c: Tensor,
        gain: float,
        sync: bool,
        steps: set[str],
        fake_elements: Tensor | None,
        keep_logits: bool,
    ) -> None:
        """``E[softplus(-r)]``, ``r1_gamma / 2 E[|g|^2]``, or both of the same logits."""
        images = real_img.detach().requires_grad_("Dreg" in steps)
        logits = self.run_discriminator(images, real_c, sync, False)
        self.reports.logits("real", logits)
        parts = []
        if "Dreg" in steps:
            logits, penalty = self._with_r1(logits, images, gain, "Dmain" in steps)
            parts.append(penalty)
        if "Dmain" in steps:
            parts.append(discriminator_side_loss(logits, True, "bce", weight=gain))
            if self.reports:
                elements: Any = discriminator_side_loss(
                    logits.detach(), True, "bce", reduction="none"
                )
                self.reports("Loss/D/loss", elements + fake_elements)
        if keep_logits and "Dmain" not in steps:  # a zero for the last bias, not None
            parts.append((logits * 0).mean())
        sum(parts[1:], parts[0]).backward()

    def _with_r1(
        self, logits: Tensor, images: Tensor, gain: float, is_shared: bool
    ) -> tuple[Tensor, Tensor]:
        """The logits, and ``gain r1_gamma / 2 E[|g|^2]``, taken apart by sample only where that is
        reported. A main loss of the same logits shares its backward with the penalty where the
        discriminator is one for :func:`~ganloss_fast.logits_and_penalty`."""
        factor = self.r1_gamma / 2
        penalty = NormPenalty(reduction="none") if self.reports else SQUARED_NORM
        weight = 1.0 if self.reports else factor * gain
        if is_shared:
            logits, value = logits_and_penalty(logits, images, penalty, weight=weight)
        else:
            value = penalty_from_logits(logits, images, penalty, weight=weight)
        if not self.reports:
            return logits, value
        self.reports("Loss/r1_penalty", value)
        self.reports("Loss/D/reg", value * factor)
        return logits, value.mean() * (factor * gain)
