"""Every drop-in on inputs that nobody tries: shapes, layouts, dtypes, and numbers at the edge.

Values, gradients, shapes and dtypes are those of the formulas in float32, or float64. Formulas of
cross-entropy are written with softplus, which at infinite logits is right where stock is NaN.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ganloss_fast.compat import (
    audiocraft,
    basicsr,
    biggan,
    cut,
    cyclegan,
    hifigan,
    lecam,
    llamagen,
    mmagic,
    mmgeneration,
    monai,
    parallel_wavegan,
    pix2pixhd,
    spade,
    studiogan,
    stylegan2_rosinality,
    taming,
    tf_gan,
    torchgan,
    vits,
)

# ---- inputs ------------------------------------------------------------------------------------

INPUTS = {
    "0-d": lambda draw: draw(),
    "[1]": lambda draw: draw(1),
    "[B]": lambda draw: draw(6),
    "[B, 1]": lambda draw: draw(6, 1),
    "strided": lambda draw: draw(6, 4)[:, ::2],
    "transposed": lambda draw: draw(5, 6).t(),
    "channels last": lambda draw: draw(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "expanded": lambda draw: draw(6, 1).expand(6, 3),
    "float16": lambda draw: draw(6, 5).half(),
    "bfloat16": lambda draw: draw(6, 5).bfloat16(),
    "float64": lambda draw: draw(6, 2).double(),
    "huge": lambda draw: torch.tensor([1e30, -1e30, 3e4]),
    "NaN": lambda draw: torch.tensor([1.0, math.nan, -2.0]),
    "inf": lambda draw: torch.tensor([1.0, math.inf, -2.0]),
    "-inf": lambda draw: torch.tensor([1.0, -math.inf, -2.0]),
    "no elements": lambda draw: draw(0, 1),
}


def inputs(kind: str, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return [INPUTS[kind](draw).detach().requires_grad_() for _ in range(count)]


# ---- formulas ----------------------------------------------------------------------------------


def sp(x):
    return F.softplus(x, threshold=50)


def bce(x, target):
    parts = [w * sp(s * x) for w, s in ((target, -1), (1 - target, 1)) if w != 0]
    return sum(parts).mean()


def squares(x, target):
    return ((x - target) ** 2).mean()


def hinge(x, is_real):
    return F.relu(1 - x if is_real else 1 + x).mean()


def linear(x, is_real):
    return -x.mean() if is_real else x.mean()


# ---- one side ----------------------------------------------------------------------------------

OF_LABEL = {"lsgan": squares, "vanilla": bce, "wgan": linear, "wgangp": linear, "hinge": hinge}


def criteria():
    """(name, drop-in, formula) of criteria that take a mode and a side."""
    for is_real in (True, False):
        for module in (cyclegan, cut):
            for mode in ("lsgan", "vanilla", "wgangp"):
                criterion = module.GANLoss(mode)
                yield f"{module.__name__} {mode} {is_real}", criterion, OF_LABEL[mode], is_real
        for module in (basicsr, mmagic):
            for mode in ("lsgan", "vanilla", "wgan", "hinge"):
                criterion = module.GANLoss(mode)
                yield f"{module.__name__} {mode} {is_real}", criterion, OF_LABEL[mode], is_real
        yield f"spade {is_real}", spade.GANLoss("hinge"), hinge, is_real
        patch = monai.PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        yield f"monai {is_real}", patch, squares, is_real


def one_sided(criterion, formula, is_real):
    options = {}
    if isinstance(criterion, basicsr.GANLoss):
        options["is_disc"] = True
    if isinstance(criterion, monai.PatchAdversarialLoss):
        options["for_discriminator"] = True
    target = float(is_real) if formula in (squares, bce) else is_real
    return lambda x: criterion(x, is_real, **options), lambda x: formula(x, target)


ONE_SIDED = {name: one_sided(*case) for name, *case in criteria()} | {
    "mmgeneration": (mmgeneration.disc_shift_loss, lambda x: squares(x, 0.0)),
    "llamagen": (llamagen.hinge_gen_loss, lambda x: -x.mean()),
    "rosinality": (stylegan2_rosinality.g_nonsaturating_loss, lambda x: sp(-x).mean()),
    "biggan": (biggan.loss_hinge_gen, lambda x: -x.mean()),
    "torchgan minimax": (torchgan.minimax_generator_loss, lambda x: bce(x, 1.0)),
    "torchgan ls": (torchgan.least_squares_generator_loss, lambda x: 0.5 * squares(x, 1.0)),
    "tf-gan": (tf_gan.wasserstein_generator_loss, lambda x: -x.mean()),
    "studiogan": (lambda x: studiogan.g_hinge(x, False), lambda x: -x.mean()),
    "hifigan": (lambda x: hifigan.generator_loss([x])[0], lambda x: squares(x, 1.0)),
    "parallel_wavegan": (
        lambda x: parallel_wavegan.GeneratorAdversarialLoss()([x]),
        lambda x: squares(x, 1.0),
    ),
    "pix2pixhd": (lambda x: pix2pixhd.GANLoss()([[x]], True), lambda x: squares(x, 1.0)),
    "multi-scale": (
        lambda x: basicsr.MultiScaleGANLoss("hinge")([[x], [x]], True, True),
        lambda x: hinge(x, True),
    ),
    "spade's list": (
        lambda x: spade.GANLoss("ls")([[x], [x]], True),
        lambda x: squares(x, 1.0).reshape(1),
    ),
    "audiocraft": (audiocraft.get_adv_criterion("hinge2"), lambda x: hinge(x, True)),
}

# ---- both sides --------------------------------------------------------------------------------


def both(real, fake):
    return lambda r, f: real(r) + fake(f)


HINGES = both(lambda r: hinge(r, True), lambda f: hinge(f, False))
LOGISTIC = both(lambda r: sp(-r).mean(), lambda f: sp(f).mean())
SQUARES = both(lambda r: squares(r, 1.0), lambda f: squares(f, 0.0))
LINEAR = both(lambda r: -r.mean(), lambda f: f.mean())


class Averages:
    D_real, D_fake = 0.3, -0.2


TWO_SIDED = {
    "taming hinge": (taming.hinge_d_loss, lambda r, f: 0.5 * HINGES(r, f)),
    "taming vanilla": (taming.vanilla_d_loss, lambda r, f: 0.5 * LOGISTIC(r, f)),
    "llamagen": (llamagen.non_saturating_d_loss, lambda r, f: 0.5 * LOGISTIC(r, f)),
    "lecam hinge": (lambda r, f: sum(lecam.loss_hinge_dis(f, r)), HINGES),
    "lecam dcgan": (lambda r, f: sum(lecam.loss_dcgan_dis(f, r)), LOGISTIC),
    "lecam ls": (
        lambda r, f: sum(lecam.loss_ls_dis(f, r)),
        both(lambda r: squares(r, -1.0), lambda f: squares(f, 1.0)),
    ),
    "lecam rahinge": (
        lambda r, f: sum(lecam.loss_rahinge_dis(f, r)),
        lambda r, f: 0.5 * (hinge(r - f.mean(), True) + hinge(f - r.mean(), False)),
    ),
    "lecam_reg": (
        lambda r, f: lecam.lecam_reg(r, f, Averages),
        lambda r, f: F.relu(r + 0.2).square().mean() + F.relu(0.3 - f).square().mean(),
    ),
    "biggan": (lambda r, f: sum(biggan.loss_hinge_dis(f, r)), HINGES),
    "rosinality": (stylegan2_rosinality.d_logistic_loss, LOGISTIC),
    "torchgan minimax": (torchgan.minimax_discriminator_loss, LOGISTIC),
    "torchgan ls": (
        torchgan.least_squares_discriminator_loss,
        lambda r, f: 0.5 * SQUARES(r, f),
    ),
    "torchgan w": (torchgan.wasserstein_discriminator_loss, LINEAR),
    "tf-gan modified": (
        tf_gan.modified_discriminator_loss,
        both(lambda r: bce(r, 0.875), lambda f: bce(f, 0.0)),
    ),
    "tf-gan hinge": (tf_gan.wasserstein_hinge_discriminator_loss, HINGES),
    "studiogan hinge": (lambda r, f: studiogan.d_hinge(r, f, False), HINGES),
    "studiogan logistic": (lambda r, f: studiogan.d_logistic(r, f, False), LOGISTIC),
    "studiogan w": (lambda r, f: studiogan.d_wasserstein(r, f, False), LINEAR),
    "hifigan": (lambda r, f: hifigan.discriminator_loss([r], [f])[0], SQUARES),
    "hifigan maps": (
        lambda r, f: hifigan.feature_loss([[r]], [[f]]),
        lambda r, f: 2 * (r - f).abs().mean(),
    ),
    "vits maps": (
        lambda r, f: vits.feature_loss([[r]], [[f]]),
        lambda r, f: 2 * (r.detach() - f).abs().mean(),
    ),
    "parallel_wavegan": (
        lambda r, f: sum(parallel_wavegan.DiscriminatorAdversarialLoss()([f], [r])),
        SQUARES,
    ),
}

# The slope of |a - b| is unknown where one is not finite: here it is NaN, of torch.sign 0.
UNKNOWN = {(name, kind) for name in TWO_SIDED if "maps" in name for kind in ("NaN", "inf", "-inf")}
# AudioCraft's criteria give [1] for an output without elements.
UNKNOWN.add(("audiocraft", "no elements"))


def assert_same_on(name, kind, ours, plain, count):
    if (name, kind) in UNKNOWN:
        return
    given = inputs(kind, count)
    is_half = given[0].dtype in (torch.float16, torch.bfloat16)
    found, wanted = ours(*given), plain(*(x.float() if is_half else x for x in given))
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)
    gradients = (torch.autograd.grad(t.sum(), given, allow_unused=True) for t in (found, wanted))
    for ours_gradient, gradient in zip(*gradients, strict=True):
        assert (ours_gradient is None) == (gradient is None)
        if gradient is not None:
            tolerance = {"rtol": 1e-2, "atol": 1e-3} if is_half else {"rtol": 1e-4, "atol": 1e-6}
            torch.testing.assert_close(ours_gradient, gradient, equal_nan=True, **tolerance)


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", ONE_SIDED)
def test_one_side(name, kind):
    assert_same_on(name, kind, *ONE_SIDED[name], count=1)


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", TWO_SIDED)
def test_two_sides(name, kind):
    assert_same_on(name, kind, *TWO_SIDED[name], count=2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: hifigan.discriminator_loss([], []),
        lambda: hifigan.generator_loss([]),
        lambda: parallel_wavegan.GeneratorAdversarialLoss()([]),
        lambda: pix2pixhd.GANLoss()([], True),
        lambda: pix2pixhd.GANLoss()([[]], True),
        lambda: spade.GANLoss("ls")([], True),
        lambda: basicsr.MultiScaleGANLoss("lsgan")([], True),
        lambda: taming.hinge_d_loss([], []),
        lambda: hifigan.discriminator_loss([[torch.zeros(2)]], [[torch.zeros(2)]]),
        lambda: spade.GANLoss("ls")([[[torch.zeros(2)]]], True),
        lambda: cyclegan.GANLoss("lsgan")([torch.zeros(2)], True),
        lambda: basicsr.GANLoss("lsgan")(torch.zeros(2, dtype=torch.int64), True),
    ],
)
def test_what_is_no_output_is_refused(call):
    with pytest.raises((TypeError, ValueError), match="expected"):
        call()
