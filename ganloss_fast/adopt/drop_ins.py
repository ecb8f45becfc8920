"""Which losses of which packages and codebases have a drop-in.

What a drop-in has it says itself; here stands what it cannot say: which module it stands in for,
and which of its names are not that module's in every respect.
"""

from __future__ import annotations

from types import ModuleType

from ganloss_fast.compat import (
    audiocraft,
    basicsr,
    ctgan,
    dac,
    encodec,
    latent_diffusion,
    mmagic,
    mmgeneration,
    monai,
    parallel_wavegan,
    taming,
    torchgan,
)

# Module of the original: its drop-in. A drop-in may have more names than one module of the
# original; those that it lacks are imported from it in no script that runs.
DROP_INS: dict[str, ModuleType] = {
    "basicsr.losses": basicsr,
    "basicsr.losses.gan_loss": basicsr,
    "basicsr.losses.losses": basicsr,
    "taming.modules.losses.vqperceptual": taming,
    "ldm.modules.losses.contperceptual": latent_diffusion,
    "sgm.modules.autoencoding.losses.discriminator_loss": latent_diffusion,
    "monai.losses": monai,
    "monai.losses.adversarial_loss": monai,
    "parallel_wavegan.losses": parallel_wavegan,
    "dac.nn.loss": dac,
    "audiocraft.adversarial": audiocraft,
    "audiocraft.adversarial.losses": audiocraft,
    "audiocraft.losses": audiocraft,
    "audiocraft.losses.balancer": audiocraft,
    "encodec.balancer": encodec,
    "ctgan.synthesizers.ctgan": ctgan,
    "mmagic.models.losses": mmagic,
    "mmgen.models.losses": mmgeneration,
    "torchgan.losses": torchgan,
    "torchgan.losses.functional": torchgan,
}

_TAKES_NETWORKS = "takes as arguments the networks that the original makes"
_HAS_GRADIENT = "has a gradient, which the original loses"

# Of a drop-in, the names that are not exchanged without being asked: what theirs does otherwise.
DIFFERENT: dict[ModuleType, dict[str, str]] = {
    basicsr: {"PerceptualLoss": _TAKES_NETWORKS},
    taming: {"VQLPIPSWithDiscriminator": _TAKES_NETWORKS},
    latent_diffusion: {
        "LPIPSWithDiscriminator": _TAKES_NETWORKS,
        "VQLPIPSWithDiscriminator": _TAKES_NETWORKS,
    },
    mmagic: {
        "AdvLoss": 'is least squares for "lsgan", for which the original has the absolute distance',
        "DiscShiftLossComps": "gives the mean of the squares, the original gives the squares",
        "PerceptualLoss": _TAKES_NETWORKS,
    },
    torchgan: {
        "MutualInformationPenalty": _HAS_GRADIENT,
        "mutual_information_penalty": _HAS_GRADIENT,
    },
}


def names_of(drop_in: ModuleType) -> set[str]:
    """What a drop-in has: its ``__all__``, or what it defines without an underscore."""
    defined = [
        name
        for name, thing in vars(drop_in).items()
        if getattr(thing, "__module__", "") == drop_in.__name__ and not name.startswith("_")
    ]
    return set(getattr(drop_in, "__all__", defined))


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
    (_HIFIGAN | {"MultiPeriodDiscriminator"}, (), "hifigan"),
    (_HIFIGAN, (), "hifigan (or bigvgan, vits)"),
    ({"discriminator_loss", "generator_loss"}, (), "hifigan (or bigvgan, vits)"),
    ({"MultiPeriodDiscriminator"}, (), "hifigan (or bigvgan, vits)"),
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
