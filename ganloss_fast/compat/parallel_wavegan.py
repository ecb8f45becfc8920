"""ParallelWaveGAN (kan-bayashi/ParallelWaveGAN): ``losses``. The generated side comes first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganloss_fast.checks import check_choice
from ganloss_fast.compat._lists import check_maps, last_of_each
from ganloss_fast.losses.adversarial import discriminator_side_loss, generator_loss
from ganloss_fast.losses.details import Reduction
from ganloss_fast.losses.matching import feature_matching_loss
from ganloss_fast.losses.table import Hinge, LeastSquares, Loss

_LOSSES: dict[str, Loss] = {"mse": LeastSquares(), "hinge": Hinge()}

Outputs = Tensor | Sequence[Tensor] | Sequence[Sequence[Tensor]]


def _reduction(average: bool) -> Reduction:
    return "mean" if average else "sum"


class _AdversarialLoss(torch.nn.Module):
    """Where the discriminators gave feature maps too, their last entries are the logits."""

    def __init__(self, average_by_discriminators: bool = True, loss_type: str = "mse") -> None:
        super().__init__()
        check_choice("loss_type", loss_type, tuple(_LOSSES))
        self.average_by_discriminators = average_by_discriminators
        self.loss = _LOSSES[loss_type]

    def _logits(self, name: str, outputs: Outputs) -> Tensor | list[Tensor]:
        return outputs if isinstance(outputs, Tensor) else last_of_each(name, outputs)

    def extra_repr(self) -> str:
        return f"{self.loss.name}, average_by_discriminators={self.average_by_discriminators}"


class GeneratorAdversarialLoss(_AdversarialLoss):
    """``E[(1 - g)^2]``, or ``-E[g]`` for hinge.

    Args:
        average_by_discriminators: mean over discriminators, instead of their sum.
        loss_type: ``"mse"`` for least squares, or ``"hinge"``.
    """

    def forward(self, outputs: Outputs) -> Tensor:
        """Of the logits of one discriminator, or of a list of them, with feature maps or not."""
        return generator_loss(
            self._logits("outputs", outputs),
            self.loss,
            output_reduction=_reduction(self.average_by_discriminators),
        )


class DiscriminatorAdversarialLoss(_AdversarialLoss):
    """``E[(1 - r)^2]`` and ``E[g^2]``, or the two hinges. Arguments as for the generator's."""

    def forward(self, outputs_hat: Outputs, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """``(real_loss, fake_loss)`` of logits on generated and on real audio, in this order."""
        reduction = _reduction(self.average_by_discriminators)
        real, fake = (
            discriminator_side_loss(
                self._logits(name, logits), is_real, self.loss, output_reduction=reduction
            )
            for name, logits, is_real in (
                ("outputs", outputs, True),
                ("outputs_hat", outputs_hat, False),
            )
        )
        return real, fake


class FeatureMatchLoss(torch.nn.Module):
    """L1 between feature maps, real ones detached.

    Args:
        average_by_layers: mean over the maps of a discriminator, instead of their sum.
        average_by_discriminators: likewise over discriminators.
        include_final_outputs: whether the last map of each, its logits, counts.
    """

    def __init__(
        self,
        average_by_layers: bool = True,
        average_by_discriminators: bool = True,
        include_final_outputs: bool = False,
    ) -> None:
        super().__init__()
        self.average_by_layers = average_by_layers
        self.average_by_discriminators = average_by_discriminators
        self.include_final_outputs = include_final_outputs

    def forward(
        self, feats_hat: Sequence[Sequence[Tensor]], feats: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """Of the maps of generated and of real audio, in this order."""
        return feature_matching_loss(
            check_maps("feats", feats),
            check_maps("feats_hat", feats_hat),
            include_last=self.include_final_outputs,
            layer_reduction=_reduction(self.average_by_layers),
            discriminator_reduction=_reduction(self.average_by_discriminators),
        )
