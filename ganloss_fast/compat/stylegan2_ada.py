"""StyleGAN2-ADA (NVlabs/stylegan2-ada-pytorch): ``training/loss.py``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.compat._stylegan import Report, StyleGAN2Steps, style_mixed


def _synchronised(module: Any, sync: bool) -> contextlib.AbstractContextManager[None]:
    """Without it, DistributedDataParallel leaves the gradients of a backward to the next one."""
    if sync or not isinstance(module, torch.nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    return module.no_sync()


class StyleGAN2Loss(StyleGAN2Steps):
    """The loss of StyleGAN2-ADA (Karras et al., 2020): logistic, with R1 and path length.

    Args:
        device: where the moving average of path lengths lies.
        G_mapping: ``(z, c) -> ws`` [B, layers, D]; for style mixing with
            ``skip_w_avg_update=True``.
        G_synthesis: ``ws -> images``.
        D: ``(images, c) -> logits``.
        augment_pipe: ``images -> images``, or None.
        style_mixing_prob: probability of style mixing.
        r1_gamma: ``gamma``; 0 leaves R1 out.
        pl_batch_shrink: the share of the batch for path lengths is its inverse.
        pl_decay: share of a batch in the moving average of path lengths.
        pl_weight: weight of path length regularisation; 0 leaves it out.
        report: takes ``(name, tensor)`` for the statistics of a step, as
            ``training_stats.report``; adaptive augmentation needs ``"Loss/signs/real"``. None: no
            statistics.
    """

    def __init__(
        self,
        device: torch.device | str,
        G_mapping: Callable[..., Tensor],
        G_synthesis: Callable[..., Tensor],
        D: Callable[..., Tensor],
        augment_pipe: Callable[[Tensor], Tensor] | None = None,
        style_mixing_prob: float = 0.9,
        r1_gamma: float = 10,
        pl_batch_shrink: int = 2,
        pl_decay: float = 0.01,
        pl_weight: float = 2,
        *,
        report: Report = None,
    ) -> None:
        super().__init__(device, r1_gamma, pl_weight, pl_batch_shrink, pl_decay, report)
        self.G_mapping = G_mapping
        self.G_synthesis = G_synthesis
        self.D = D
        self.augment_pipe = augment_pipe
        self.style_mixing_prob = style_mixing_prob

    def run_G(self, z: Tensor, c: Tensor, sync: bool) -> tuple[Tensor, Tensor]:
        """Images and what they were made from, with style mixing."""
        with _synchronised(self.G_mapping, sync):
            ws = self.G_mapping(z, c)
            if self.style_mixing_prob > 0:
                ws = style_mixed(
                    ws,
                    z,
                    self.style_mixing_prob,
                    lambda other: self.G_mapping(other, c, skip_w_avg_update=True),
                )
        with _synchronised(self.G_synthesis, sync):
            return self.G_synthesis(ws), ws

    def run_D(self, img: Tensor, c: Tensor, sync: bool) -> Tensor:
        """Logits of augmented images."""
        if self.augment_pipe is not None:
            img = self.augment_pipe(img)
        with _synchronised(self.D, sync):
            return self.D(img, c)

    def run_generator(
        self, z: Tensor, c: Tensor, sync: bool, with_averages: bool
    ) -> tuple[Tensor, Tensor]:
        return self.run_G(z, c, sync)

    def run_discriminator(
        self, images: Tensor, c: Tensor, sync: bool, with_averages: bool
    ) -> Tensor:
        return self.run_D(images, c, sync)

    def accumulate_gradients(
        self,
        phase: str,
        real_img: Tensor,
        real_c: Tensor,
        gen_z: Tensor,
        gen_c: Tensor,
        sync: bool,
        gain: float,
    ) -> None:
        """Adds the gradients of a phase to the parameters.

        Args:
            phase: ``"Gmain"``, ``"Greg"``, ``"Gboth"``, ``"Dmain"``, ``"Dreg"`` or ``"Dboth"``.
            real_img: real images [B, C, H, W].
            real_c: their labels.
            gen_z: latents of generated images.
            gen_c: labels of generated images.
            sync: whether ``DistributedDataParallel`` adds up the gradients of this call.
            gain: factor of the loss, the interval of a lazy regularisation.

        Raises:
            ganloss_fast.compat.UnknownMode: for another phase.
        """
        steps = self.wanted(phase)
        if "Gmain" in steps:
            self.generator_step(gen_z, gen_c, gain, sync and "Greg" not in steps)
        if "Greg" in steps:
            self.path_length_step(gen_z, gen_c, gain, sync, keep_images=True)
        fakes = self.fake_step(gen_z, gen_c, gain) if "Dmain" in steps else None
        if steps & {"Dmain", "Dreg"}:
            self.real_step(real_img, real_c, gain, sync, steps, fakes, keep_logits=True)
