"""Fused GAN losses and gradient penalties for PyTorch."""

import warnings as _warnings

from ganloss_fast import extension as _extension
from ganloss_fast.backends import get_backend, set_backend, use_backend
from ganloss_fast.balancing.backward import Balance, balanced_backward
from ganloss_fast.balancing.rules import AdaptiveWeight, GradientShares, NormAverages
from ganloss_fast.diagnose import Diagnosis, diagnose
from ganloss_fast.freezing import frozen
from ganloss_fast.graph_cut.compiler_pass import compile_options
from ganloss_fast.graph_cut.second_order import cut_second_order
from ganloss_fast.joint_forward import forward_together
from ganloss_fast.losses.adversarial import (
    discriminator_loss,
    discriminator_loss_details,
    discriminator_side_loss,
    generator_loss,
    generator_loss_details,
)
from ganloss_fast.losses.boundary_equilibrium import (
    BoundaryEquilibrium,
    BoundaryEquilibriumStep,
)
from ganloss_fast.losses.composite.composite_loss import CompositeLoss, composite_loss
from ganloss_fast.losses.composite.gram import gram_matrix
from ganloss_fast.losses.composite.perceptual_features import (
    FeaturePair,
    PerceptualFeatures,
    SequentialFeatures,
)
from ganloss_fast.losses.composite.terms import (
    L1,
    MSE,
    Adversarial,
    FeatureMatching,
    Gram,
    Perceptual,
)
from ganloss_fast.losses.consistency import (
    balanced_consistency_loss,
    consistency_loss,
    latent_diversity_loss,
)
from ganloss_fast.losses.contrastive import dual_contrastive_loss, multi_hinge_loss
from ganloss_fast.losses.details import LossDetails, LossStatistics
from ganloss_fast.losses.kl_wgan import kl_weighted_logits
from ganloss_fast.losses.label_noise import noisy_labels
from ganloss_fast.losses.lecam import LeCam, lecam_regularization
from ganloss_fast.losses.matching import feature_matching_loss
from ganloss_fast.losses.pooled_means import PooledMean
from ganloss_fast.losses.table import BCE, Hinge, LeastSquares, Wasserstein
from ganloss_fast.losses.top_k import top_k_logits
from ganloss_fast.losses.weight_clipping import clip_weights_
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
from ganloss_fast.penalties.packs import PackedCritic, packs
from ganloss_fast.penalties.path_length import PathLength, path_length_penalty
from ganloss_fast.penalties.points import AroundReal, interpolate
from ganloss_fast.penalties.shared_backward import LogitsAndPenalty, logits_and_penalty
from ganloss_fast.penalties.table import PENALTIES, R1, R2, WGANGP, Dragan, NormPenalty
from ganloss_fast.steps import discriminator_backward, generator_backward

if _extension.REFUSAL is not None:
    _warnings.warn(_extension.REFUSAL, stacklevel=2)

__version__ = "0.1.0"

__all__ = [
    "BCE",
    "L1",
    "MSE",
    "PENALTIES",
    "R1",
    "R2",
    "WGANGP",
    "AdaptiveWeight",
    "Adversarial",
    "AroundReal",
    "Balance",
    "BoundaryEquilibrium",
    "BoundaryEquilibriumStep",
    "Call",
    "CompositeLoss",
    "Diagnosis",
    "Differentiation",
    "DiscriminatorLoss",
    "Dragan",
    "FeatureMatching",
    "FeatureMatchingLoss",
    "FeaturePair",
    "GeneratorLoss",
    "GradientPenalty",
    "GradientShares",
    "Gram",
    "Hinge",
    "LazyRegularizer",
    "LeCam",
    "LeastSquares",
    "LogitsAndPenalty",
    "LossDetails",
    "LossStatistics",
    "NormAverages",
    "NormPenalty",
    "PackedCritic",
    "PathLength",
    "PenaltyDetails",
    "Perceptual",
    "PerceptualFeatures",
    "PooledMean",
    "SequentialFeatures",
    "Wasserstein",
    "approximate_r1_penalty",
    "balanced_backward",
    "balanced_consistency_loss",
    "clip_weights_",
    "compile_options",
    "composite_loss",
    "consistency_loss",
    "cut_second_order",
    "diagnose",
    "discriminator_backward",
    "discriminator_loss",
    "discriminator_loss_details",
    "discriminator_side_loss",
    "dual_contrastive_loss",
    "feature_matching_loss",
    "forward_together",
    "frozen",
    "generator_backward",
    "generator_loss",
    "generator_loss_details",
    "get_backend",
    "gradient_penalty",
    "gradient_penalty_details",
    "gram_matrix",
    "interpolate",
    "kl_weighted_logits",
    "latent_diversity_loss",
    "lecam_regularization",
    "logits_and_penalty",
    "multi_hinge_loss",
    "noisy_labels",
    "packs",
    "path_length_penalty",
    "penalty_from_grads",
    "penalty_from_logits",
    "perturb",
    "r1_penalty",
    "r2_penalty",
    "set_backend",
    "top_k_logits",
    "use_backend",
]
