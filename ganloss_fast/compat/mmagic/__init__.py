"""mmagic and mmgeneration (open-mmlab/mmagic): ``mmagic.models.losses``.

Their registry finds the classes by name: ``MODELS.register_module(module=GANLoss, force=True)``
lets a configuration find this one.
"""

from ganloss_fast.compat.mmagic.adv_loss import (
    AdvLoss,
    DiscLoss,
    DiscLossWGANGP,
    RelativisticDiscLoss,
    RelativisticDiscLossLS,
)
from ganloss_fast.compat.mmagic.gan_loss import (
    DiscShiftLoss,
    GANLoss,
    GaussianBlur,
    GradientPenaltyLoss,
    disc_shift_loss,
    gen_path_regularizer,
    gradient_penalty_loss,
    r1_gradient_penalty_loss,
)
from ganloss_fast.compat.mmagic.loss_comps import (
    DiscShiftLossComps,
    GANLossComps,
    GeneratorPathRegularizerComps,
    GradientPenaltyLossComps,
    R1GradientPenaltyComps,
)
from ganloss_fast.compat.mmagic.perceptual_loss import PerceptualLoss

__all__ = [
    "AdvLoss",
    "DiscLoss",
    "DiscLossWGANGP",
    "DiscShiftLoss",
    "DiscShiftLossComps",
    "GANLoss",
    "GANLossComps",
    "GaussianBlur",
    "GeneratorPathRegularizerComps",
    "GradientPenaltyLoss",
    "GradientPenaltyLossComps",
    "PerceptualLoss",
    "R1GradientPenaltyComps",
    "RelativisticDiscLoss",
    "RelativisticDiscLossLS",
    "disc_shift_loss",
    "gen_path_regularizer",
    "gradient_penalty_loss",
    "r1_gradient_penalty_loss",
]
