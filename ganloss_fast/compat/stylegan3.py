"""StyleGAN3 (NVlabs/stylegan3): ``training/loss.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.compat._filters import separably_filtered
from ganloss_fast.compat._stylegan import Report, StyleGAN2Steps, style_mixed


class StyleGAN2Loss(StyleGAN2Steps):
    """The loss of StyleGAN3 (Karras et al., 2021): StyleGAN2's, with a blur that fades out.

    Args:
        device: where the moving average of path lengths lies.
        G: ``G.mapping(z, c, update_emas=) -> ws`` [B, layers, D] and
            ``G.synthesis(ws, update_emas=) -> images``.
        D: ``(images, c, update_emas=) -> logits``.
        augment_pipe: ``images -> images``, or None.
        r1_gamma: ``gamma``; 0 leaves R1 out.
        style_mixing_prob: probability of style mixing.
        pl_weight: weight of path length regularisation; 0 leaves it out.
        pl_batch_shrink: the share of the batch for path lengths is its inverse.
        pl_decay: share of a batch in the moving average of path lengths.
        pl_no_weight_grad: not used: PyTorch leaves out weight gradients that nobody asks for.
        blur_init_sigma: deviation of the blur of all images at the start, in pixels; here
            ``exp2(-(x / sigma)^2)``.
        blur_fade_kimg: thousands of images until it has faded; 0 leaves the blur out.
        report: takes ``(name, tensor)`` for the statistics of a step, as
            ``training_stats.report``; adaptive augmentation needs ``"Loss/signs/real"``. None: no
            statistics.
    """

    def __init__(
        self,
        device: torch.device | str,
        G: Any,
        D: Callable[..., Tensor],
        augment_pipe: Callable[[Tensor], Tensor] | None = None,
        r1_gamma: float = 10,
        style_mixing_prob: float = 0,
        pl_weight: float = 0,
        pl_batch_shrink: int = 2,
        pl_decay: float = 0.01,
        pl_no_weight_grad: bool = False,
        blur_init_sigma: float = 0,
        blur_fade_kimg: float = 0,
        *,
        report: Report = None,
    ) -> None:
        super().__init__(device, r1_gamma, pl_weight, pl_batch_shrink, pl_decay, report)
        self.G = G
        self.D = D
        self.augment_pipe = augment_pipe
        self.style_mixing_prob = style_mixing_prob
        self.pl_no_weight_grad = pl_no_weight_grad
        self.blur_init_sigma = blur_init_sigma
        self.blur_fade_kimg = blur_fade_kimg
        self._blur_sigma = 0.0

    def run_G(self, z: Tensor, c: Tensor, update_emas: bool = False) -> tuple[Tensor, Tensor]:
        """Images and what they were made from, with style mixing."""
        ws = self.G.mapping(z, c, update_emas=update_emas)
        if self.style_mixing_prob > 0:
            ws = style_mixed(
                ws,
                z,
                self.style_mixing_prob,
                lambda other: self.G.mapping(other, c, update_emas=False),
            )
        return self.G.synthesis(ws, update_emas=update_emas), ws

    def run_D(
        self, img: Tensor, c: Tensor, blur_sigma: float = 0, update_emas: bool = False
    ) -> Tensor:
        """Logits of blurred and augmented images."""
        img = blurred(img, blur_sigma)
        if self.augment_pipe is not None:
            img = self.augment_pipe(img)
        return self.D(img, c, update_emas=update_emas)

    def run_generator(
        self, z: Tensor, c: Tensor, sync: bool, with_averages: bool
    ) -> tuple[Tensor, Tensor]:
        return self.run_G(z, c, update_emas=with_averages)

    def run_discriminator(
        self, images: Tensor, c: Tensor, sync: bool, with_averages: bool
    ) -> Tensor:
        return self.run_D(images, c, self._blur_sigma, update_emas=with_averages)

    def accumulate_gradients(
        self,
        phase: str,
        real_img: Tensor,
        real_c: Tensor,
        gen_z: Tensor,
        gen_c: Tensor,
        gain: float,
        cur_nimg: int,
    ) -> None:
        """Adds the gradients of a phase to the parameters.

        Args:
            phase: ``"Gmain"``, ``"Greg"``, ``"Gboth"``, ``"Dmain"``, ``"Dreg"`` or ``"Dboth"``.
            real_img: real images [B, C, H, W].
            real_c: their labels.
            gen_z: latents of generated images.
            gen_c: labels of generated images.
            gain: factor of the loss, the interval of a lazy regularisation.
            cur_nimg: images that the training has seen, for the blur.

        Raises:
            ganloss_fast.compat.UnknownMode: for another phase.
        """
        steps = self.wanted(phase)
        self._blur_sigma = self._sigma_at(cur_nimg)
        if "Gmain" in steps:
            self.generator_step(gen_z, gen_c, gain, True)
        if "Greg" in steps:
            self.path_length_step(gen_z, gen_c, gain, True, keep_images=False)
        fakes = self.fake_step(gen_z, gen_c, gain) if "Dmain" in steps else None
        if steps & {"Dmain", "Dreg"}:
            self.real_step(real_img, real_c, gain, True, steps, fakes, keep_logits=False)

    def _sigma_at(self, cur_nimg: int) -> float:
        if self.blur_fade_kimg <= 0:
            return 0.0
        return max(1 - cur_nimg / (self.blur_fade_kimg * 1e3), 0) * self.blur_init_sigma


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Images [B, C, H, W] under the filter ``exp2(-(x / sigma)^2)`` of radius ``3 sigma``, along
    rows and columns, with zeros around them."""
    radius = int(3 * sigma)
    if radius == 0:
        return images
    x = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float64) / sigma
    weights = torch.exp2(-x.square())
    return separably_filtered(images, weights, weights)
