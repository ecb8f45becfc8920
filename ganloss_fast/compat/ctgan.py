"""Drop-in for the discriminator of CTGAN: packs of samples, and the penalty on a pack.

``from ctgan.synthesizers.ctgan import Discriminator`` becomes
``from ganloss_fast.compat.ctgan import Discriminator``: the same layers, names in the
``state_dict``, draws and values. CTGAN's discriminator step hands the generated rows over with
their graph, whose backward runs through the whole generator and is then thrown away;
:func:`discriminator_losses` is the step without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganloss_fast.checks import check_integer, check_same_device
from ganloss_fast.losses.adversarial import discriminator_loss
from ganloss_fast.penalties.gradient_penalty import gradient_penalty
from ganloss_fast.penalties.packs import packs
from ganloss_fast.penalties.table import WGANGP

__all__ = ["Discriminator", "discriminator_losses"]


class Discriminator(nn.Module):
    """CTGAN's discriminator: rows [B, D], of which ``pac`` make a pack, to logits [B / pac, 1].

    Args:
        input_dim: columns of a row.
        discriminator_dim: widths of the hidden layers.
        pac: rows in a pack.
    """

    def __init__(self, input_dim: int, discriminator_dim: Sequence[int], pac: int = 10) -> None:
        super().__init__()
        self.pac = check_integer("pac", pac)
        self.pacdim = input_dim * pac
        layers: list[nn.Module] = []
        width = self.pacdim
        for item in discriminator_dim:
            layers += [nn.Linear(width, item), nn.LeakyReLU(0.2), nn.Dropout(0.5)]
            width = item
        self.seq = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, input_: Tensor) -> Tensor:
        """The logits of packs; refuses a batch that is no multiple of ``pac``."""
        packed: Tensor = self.seq(packs(input_, self.pac).flatten(1))
        return packed

    def _judge_packs(self, packed: Tensor) -> Tensor:
        logits: Tensor = self(packed.flatten(0, 1))
        return logits

    def calc_gradient_penalty(
        self,
        real_data: Tensor,
        fake_data: Tensor,
        device: Any = "cpu",
        pac: int = 10,
        lambda_: float = 10,
    ) -> Tensor:
        """``lambda_ E[(|g| - 1)^2]`` with the norm and the share of real of a whole pack.

        ``fake_data`` are taken without their graph, which this step has no use for. ``pac`` has to
        be the discriminator's: with another one, CTGAN's number would be of parts of packs.
        """
        if pac != self.pac:
            raise ValueError(
                f"pac: expected {self.pac}, that of the discriminator, got {pac}. Pass pac="
                "discriminator.pac."
            )
        check_same_device("fake_data", fake_data, "real_data", real_data)
        alpha = torch.rand(real_data.size(0) // pac, 1, 1, device=device).flatten()
        return gradient_penalty(
            self._judge_packs,
            packs(real_data, pac),
            packs(fake_data.detach(), pac),
            WGANGP(lambda_),
            alpha=alpha.to(real_data.dtype),
        )


def discriminator_losses(
    discriminator: Discriminator,
    real_cat: Tensor,
    fake_cat: Tensor,
    device: Any = "cpu",
    lambda_: float = 10,
) -> tuple[Tensor, Tensor]:
    """(``E f - E r``, penalty) of one discriminator step, in CTGAN's order of draws.

    The generated rows are detached: gradients of the discriminator are the same, and the
    backward does not run through the generator.
    """
    fake_cat = fake_cat.detach()
    fake = discriminator(fake_cat)
    real = discriminator(real_cat)
    penalty = discriminator.calc_gradient_penalty(
        real_cat, fake_cat, device, discriminator.pac, lambda_
    )
    return discriminator_loss(real, fake, "wasserstein"), penalty
