"""Fused GAN losses and gradient penalties for PyTorch."""

import warnings as _warnings

from ganloss_fast import extension as _extension
from ganloss_fast.backends import get_backend, set_backend, use_backend
from ganloss_fast.diagnose import Diagnosis, diagnose
from ganloss_fast.freezing import frozen
from ganloss_fast.graph_cut.compiler_pass import compile_options
from ganloss_fast.graph_cut.second_order import cut_second_order
from ganloss_fast.losses.adversarial import (
    discriminator_loss,
    discriminator_loss_details,
    discriminator_side_loss,
    generator_loss,
    generator_loss_details,
)
from ganloss_fast.losses.details import LossDetails, LossStatistics
from ganloss_fast.losses.matching import feature_matching_loss
from ganloss_fast.losses.table import BCE, Hinge, LeastSquares, Wasserstein
from ganloss_fast.modules import (
    DiscriminatorLoss,
    FeatureMatchingLoss,
    GeneratorLoss,
    GradientPenalty,
)
from ganloss_fast.penalties.approximate import approximate_r1_penalty, perturb
from ganloss_fast.penalties.critic.call import Call, Differentiation
from ganloss_fast.penalties.gradient_penalty import (
    PenaltyDetails,
    gradient_penalty,
    gradient_penalty_details,
    penalty_from_grads,
    penalty_from_logits,
    r1_penalty,
    r2_penalty,
)
from ganloss_fast.penalties.lazy import LazyRegularizer
from ganloss_fast.penalties.path_length import PathLength, path_length_penalty
from ganloss_fast.penalties.points import AroundReal, interpolate
from ganloss_fast.penalties.shared_backward import LogitsAndPenalty, logits_and_penalty
from ganloss_fast.penalties.table import PENALTIES, R1, R2, WGANGP, Dragan, NormPenalty

if _extension.REFUSAL is not None:
    _warnings.warn(_extension.REFUSAL, stacklevel=2)

__version__ = "0.1.0"

__all__ = [
    "BCE",
    "PENALTIES",
    "R1",
    "R2",
    "WGANGP",
    "AroundReal",
    "Call",
    "Diagnosis",
    "Differentiation",
    "DiscriminatorLoss",
    "Dragan",
    "FeatureMatchingLoss",
    "GeneratorLoss",
    "GradientPenalty",
    "Hinge",
    "LazyRegularizer",
    "LeastSquares",
    "LogitsAndPenalty",
    "LossDetails",
    "LossStatistics",
    "NormPenalty",
    "PathLength",
    "PenaltyDetails",
    "Wasserstein",
    "approximate_r1_penalty",
    "compile_options",
    "cut_second_order",
    "diagnose",
    "discriminator_loss",
    "discriminator_loss_details",
    "discriminator_side_loss",
    "feature_matching_loss",
    "frozen",
    "generator_loss",
    "generator_loss_details",
    "get_backend",
    "gradient_penalty",
    "gradient_penalty_details",
    "interpolate",
    "logits_and_penalty",
    "path_length_penalty",
    "penalty_from_grads",
    "penalty_from_logits",
    "perturb",
    "r1_penalty",
    "r2_penalty",
    "set_backend",
    "use_backend",
]
