"""Fused GAN losses and gradient penalties for PyTorch."""

from ganloss_fast.adversarial import (
    LossDetails,
    discriminator_loss,
    discriminator_loss_details,
    generator_loss,
    generator_loss_details,
)
from ganloss_fast.backends import get_backend, set_backend, use_backend
from ganloss_fast.losses import BCE, Hinge, LeastSquares, Wasserstein
from ganloss_fast.matching import feature_matching_loss, frozen
from ganloss_fast.modules import (
    DiscriminatorLoss,
    FeatureMatchingLoss,
    GeneratorLoss,
    GradientPenalty,
)
from ganloss_fast.penalties import gradient_penalty, interpolate

__version__ = "0.1.0"

__all__ = [
    "BCE",
    "DiscriminatorLoss",
    "FeatureMatchingLoss",
    "GeneratorLoss",
    "GradientPenalty",
    "Hinge",
    "LeastSquares",
    "LossDetails",
    "Wasserstein",
    "discriminator_loss",
    "discriminator_loss_details",
    "feature_matching_loss",
    "frozen",
    "generator_loss",
    "generator_loss_details",
    "get_backend",
    "gradient_penalty",
    "interpolate",
    "set_backend",
    "use_backend",
]
