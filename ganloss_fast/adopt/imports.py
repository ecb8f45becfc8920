"""Imports of losses from packages that have a drop-in: the same names, from another module."""

from __future__ import annotations

import libcst as cst

from ganloss_fast.adopt.names import code

_TAMING = {"hinge_d_loss", "vanilla_d_loss", "adopt_weight"}
# Module of the original: its drop-in, and the names that are to be had there.
DROP_INS: dict[str, tuple[str, set[str]]] = {
    "basicsr.losses.gan_loss": (
        "basicsr",
        {
            "GANLoss",
            "MultiScaleGANLoss",
            "g_path_regularize",
            "gradient_penalty_loss",
            "r1_penalty",
        },
    ),
    "taming.modules.losses.vqperceptual": ("taming", _TAMING),
    "ldm.modules.losses.contperceptual": ("latent_diffusion", _TAMING),
    "sgm.modules.autoencoding.losses.discriminator_loss": ("latent_diffusion", _TAMING),
    "monai.losses": ("monai", {"PatchAdversarialLoss"}),
    "monai.losses.adversarial_loss": ("monai", {"PatchAdversarialLoss"}),
    "parallel_wavegan.losses": (
        "parallel_wavegan",
        {"DiscriminatorAdversarialLoss", "FeatureMatchLoss", "GeneratorAdversarialLoss"},
    ),
    "dac.nn.loss": ("dac", {"GANLoss"}),
    "audiocraft.adversarial": (
        "audiocraft",
        {
            "AdversarialLoss",
            "FeatureMatchingLoss",
            "get_adv_criterion",
            "get_fake_criterion",
            "get_real_criterion",
        },
    ),
    "audiocraft.losses": ("audiocraft", {"Balancer"}),
    "torchgan.losses": (
        "torchgan",
        {
            "DraganGradientPenalty",
            "LeastSquaresDiscriminatorLoss",
            "LeastSquaresGeneratorLoss",
            "MinimaxDiscriminatorLoss",
            "MinimaxGeneratorLoss",
            "WassersteinDiscriminatorLoss",
            "WassersteinGeneratorLoss",
            "WassersteinGradientPenalty",
        },
    ),
}


def from_drop_in(statement: cst.SimpleStatementLine) -> list[cst.SimpleStatementLine] | None:
    """The import with its losses taken from a drop-in, what else it imports from where it was."""
    if len(statement.body) != 1 or not isinstance(statement.body[0], cst.ImportFrom):
        return None
    node = statement.body[0]
    if node.module is None or node.relative or isinstance(node.names, cst.ImportStar):
        return None
    drop_in, known = DROP_INS.get(code(node.module), ("", set[str]()))
    ours = [alias for alias in node.names if code(alias.name) in known]
    if not ours:
        return None
    theirs = [alias for alias in node.names if alias not in ours]
    lines = [_line(f"ganloss_fast.compat.{drop_in}", ours)]
    if theirs:
        lines.append(_line(code(node.module), theirs))
    lines[0] = lines[0].with_changes(leading_lines=statement.leading_lines)
    return lines


def _line(module: str, aliases: list[cst.ImportAlias]) -> cst.SimpleStatementLine:
    names = ", ".join(code(alias).rstrip(", \n") for alias in aliases)
    line = cst.parse_statement(f"from {module} import {names}")
    assert isinstance(line, cst.SimpleStatementLine)
    return line
