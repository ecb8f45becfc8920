"""Which losses of which packages and codebases have a drop-in, as data."""

from __future__ import annotations

_TAMING = {"hinge_d_loss", "vanilla_d_loss", "adopt_weight"}
_BASICSR = {
    "GANLoss",
    "MultiScaleGANLoss",
    "g_path_regularize",
    "gradient_penalty_loss",
    "r1_penalty",
}
_AUDIOCRAFT = {
    "AdversarialLoss",
    "FeatureMatchingLoss",
    "get_adv_criterion",
    "get_fake_criterion",
    "get_real_criterion",
}
_PARALLEL_WAVEGAN = {"DiscriminatorAdversarialLoss", "FeatureMatchLoss", "GeneratorAdversarialLoss"}
_MMGEN = {
    "DiscShiftLoss",
    "GANLoss",
    "GeneratorPathRegularizer",
    "GradientPenaltyLoss",
    "R1GradientPenalty",
    "disc_shift_loss",
    "gen_path_regularizer",
    "gradient_penalty_loss",
    "r1_gradient_penalty_loss",
}
# Without mutual_information_penalty, whose gradient torchgan loses.
_TORCHGAN_FUNCTIONS = {
    "auxiliary_classification_loss",
    "boundary_equilibrium_discriminator_loss",
    "boundary_equilibrium_generator_loss",
    "dragan_gradient_penalty",
    "energy_based_discriminator_loss",
    "energy_based_generator_loss",
    "energy_based_pulling_away_term",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "minimax_discriminator_loss",
    "minimax_generator_loss",
    "wasserstein_discriminator_loss",
    "wasserstein_generator_loss",
    "wasserstein_gradient_penalty",
}
_TORCHGAN = _TORCHGAN_FUNCTIONS | {
    "AuxiliaryClassifierDiscriminatorLoss",
    "AuxiliaryClassifierGeneratorLoss",
    "BoundaryEquilibriumDiscriminatorLoss",
    "BoundaryEquilibriumGeneratorLoss",
    "DiscriminatorLoss",
    "DraganGradientPenalty",
    "EnergyBasedDiscriminatorLoss",
    "EnergyBasedGeneratorLoss",
    "EnergyBasedPullingAwayTerm",
    "FeatureMatchingGeneratorLoss",
    "GeneratorLoss",
    "HistoricalAverageDiscriminatorLoss",
    "HistoricalAverageGeneratorLoss",
    "LeastSquaresDiscriminatorLoss",
    "LeastSquaresGeneratorLoss",
    "MinimaxDiscriminatorLoss",
    "MinimaxGeneratorLoss",
    "WassersteinDiscriminatorLoss",
    "WassersteinGeneratorLoss",
    "WassersteinGradientPenalty",
}

# Module of the original: its drop-in, and the names that are to be had there.
DROP_INS: dict[str, tuple[str, set[str]]] = {
    "basicsr.losses": ("basicsr", _BASICSR),
    "basicsr.losses.gan_loss": ("basicsr", _BASICSR),
    "basicsr.losses.losses": ("basicsr", _BASICSR),
    "taming.modules.losses.vqperceptual": ("taming", _TAMING),
    "ldm.modules.losses.contperceptual": ("latent_diffusion", _TAMING),
    "sgm.modules.autoencoding.losses.discriminator_loss": ("latent_diffusion", _TAMING),
    "monai.losses": ("monai", {"PatchAdversarialLoss"}),
    "monai.losses.adversarial_loss": ("monai", {"PatchAdversarialLoss"}),
    "parallel_wavegan.losses": ("parallel_wavegan", _PARALLEL_WAVEGAN),
    "dac.nn.loss": ("dac", {"GANLoss"}),
    "audiocraft.adversarial": ("audiocraft", _AUDIOCRAFT),
    "audiocraft.adversarial.losses": ("audiocraft", _AUDIOCRAFT),
    "audiocraft.losses": ("audiocraft", {"Balancer"}),
    "audiocraft.losses.balancer": ("audiocraft", {"Balancer"}),
    "encodec.balancer": ("encodec", {"Balancer"}),
    "ctgan.synthesizers.ctgan": ("ctgan", {"Discriminator"}),
    "mmagic.models.losses": (
        "mmagic",
        {"AdvLoss", "GANLoss", "GradientPenaltyLoss", "R1GradientPenaltyComps"},
    ),
    "mmgen.models.losses": ("mmgeneration", _MMGEN),
    "torchgan.losses": ("torchgan", _TORCHGAN),
    "torchgan.losses.functional": ("torchgan", _TORCHGAN_FUNCTIONS),
}

_HIFIGAN = {"discriminator_loss", "feature_loss", "generator_loss"}

# Names that may come from a module of the user's own: which of them together, parts of the module's
# name that they come with (any, if there are none), and the drop-in.
OWN_IMPORTS: list[tuple[set[str], tuple[str, ...], str]] = [
    ({"R3GANLoss"}, (), "r3gan"),
    ({"AdversarialTraining"}, ("Trainer",), "r3gan"),
    ({"StyleGAN2Loss"}, (), "stylegan2_ada (or stylegan3)"),
    ({"Balancer"}, ("balancer",), "encodec"),
    ({"GANLoss", "VGGLoss"}, (), "spade (or pix2pixhd)"),
    ({"GANLoss"}, (), "cyclegan (or cut, pix2pixhd, spade, basicsr, dac)"),
    ({"MultiScaleGANLoss"}, (), "basicsr"),
    (_HIFIGAN, (), "hifigan (or bigvgan, vits)"),
    ({"discriminator_loss", "generator_loss"}, (), "hifigan (or bigvgan, vits)"),
    ({"cal_gradient_penalty"}, (), "cyclegan"),
    ({"compute_gradient_penalty"}, (), "pytorch_gan"),
    ({"hinge_d_loss"}, (), "taming (or latent_diffusion, llamagen, titok, seed_voken)"),
    ({"LPIPSWithDiscriminator"}, (), "latent_diffusion"),
    ({"VQLPIPSWithDiscriminator"}, (), "taming (or latent_diffusion, seed_voken)"),
    ({"loss_hinge_dis"}, (), "biggan (or lecam)"),
    ({"d_logistic_loss"}, (), "stylegan2_rosinality"),
    ({"d_hinge"}, (), "studiogan"),
]

# The same, called through a module.
OWN_CALLS = {
    "GANLoss": "cyclegan (or cut, pix2pixhd, spade, basicsr, dac)",
    "R3GANLoss": "r3gan",
    "StyleGAN2Loss": "stylegan2_ada (or stylegan3)",
    "d_hinge": "studiogan",
    "g_hinge": "studiogan",
    "loss_hinge_dis": "biggan (or lecam)",
    "loss_hinge_gen": "biggan (or lecam)",
    "cal_gradient_penalty": "cyclegan",
}

# Functions and classes that a script defines itself: name and arguments (of a class the first two
# after self), and the drop-in.
OWN_FUNCTIONS: dict[tuple[str, tuple[str, ...]], str] = {
    ("discriminator_loss", ("disc_real_outputs", "disc_generated_outputs")): "hifigan",
    ("generator_loss", ("disc_outputs",)): "hifigan",
    ("feature_loss", ("fmap_r", "fmap_g")): "hifigan",
    ("compute_gradient_penalty", ("D", "real_samples", "fake_samples")): "pytorch_gan",
    ("hinge_d_loss", ("logits_real", "logits_fake")): "taming",
    ("vanilla_d_loss", ("logits_real", "logits_fake")): "taming",
    ("loss_hinge_dis", ("dis_fake", "dis_real")): "biggan",
    ("loss_dcgan_dis", ("dis_fake", "dis_real")): "biggan",
    ("d_logistic_loss", ("real_pred", "fake_pred")): "stylegan2_rosinality",
    ("d_r1_loss", ("real_pred", "real_img")): "stylegan2_rosinality",
    (
        "g_path_regularize",
        ("fake_img", "latents", "mean_path_length", "decay"),
    ): "stylegan2_rosinality",
    (
        "cal_gradient_penalty",
        ("netD", "real_data", "fake_data", "device", "type", "constant", "lambda_gp"),
    ): "cyclegan",
}
OWN_CLASSES: dict[tuple[str, tuple[str, ...]], str] = {
    ("GANLoss", ("gan_mode", "target_real_label")): "cyclegan (or cut, spade)",
    ("GANLoss", ("use_lsgan", "target_real_label")): "pix2pixhd",
    ("GANLoss", ("gan_type", "real_label_val")): "basicsr (or mmagic, mmgeneration)",
    ("GANLoss", ("discriminator",)): "dac",
}
