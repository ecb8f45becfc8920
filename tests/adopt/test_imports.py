"""Losses of packages, of codebases, and of the script's own that there is a drop-in for."""

import importlib

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from ganloss_fast.adopt import drop_ins
from ganloss_fast.adopt.script import propose
from ganloss_fast.compat import ctgan, monai


def test_losses_of_known_packages_come_from_their_drop_ins():
    source = (
        "# losses\nfrom basicsr.losses.gan_loss import GANLoss as Loss, other  # noqa: F401\n"
        "from monai.losses import PatchAdversarialLoss  # noqa: F401\n"
        "from encodec.balancer import (\n    Balancer,  # of EnCodec\n)\n"
    )
    assert propose(source).after == (
        "# losses\nfrom ganloss_fast.compat.basicsr import GANLoss as Loss  # noqa: F401\n"
        "from basicsr.losses.gan_loss import other  # noqa: F401\n"
        "from ganloss_fast.compat.monai import PatchAdversarialLoss  # noqa: F401\n"
        "from ganloss_fast.compat.encodec import (\n    Balancer,  # of EnCodec\n)\n"
    )


@pytest.mark.parametrize(
    "drop_in", dict.fromkeys(drop_ins.DROP_INS.values()), ids=lambda module: module.__name__
)
def test_a_drop_in_has_the_names_that_are_taken_from_it(drop_in):
    names = drop_ins.names_of(drop_in)
    assert names
    assert all(hasattr(drop_in, name) for name in names)
    assert drop_ins.DIFFERENT.get(drop_in, {}).keys() < names, "an exception to no rule"


@pytest.mark.parametrize(
    ("drop_in", "names"),
    [
        (monai, {"PatchAdversarialLoss"}),  # without __all__: nothing that it imports itself
        (ctgan, {"Discriminator", "discriminator_losses"}),
    ],
)
def test_the_names_of_a_drop_in_are_its_own(drop_in, names):
    assert drop_ins.names_of(drop_in) == names


@pytest.mark.parametrize(
    ("name", "original", "why"),
    [
        ("MutualInformationPenalty", "torchgan.losses", "has a gradient"),
        ("PerceptualLoss", "basicsr.losses", "takes as arguments the networks"),
        ("AdvLoss", "mmagic.models.losses", "is least squares"),
    ],
)
def test_a_loss_that_differs_from_its_drop_in_stays_with_the_difference(name, original, why):
    drop_in = drop_ins.DROP_INS[original]
    other = min(drop_ins.names_of(drop_in) - drop_ins.DIFFERENT[drop_in].keys())
    proposal = propose(f"from {original} import {name}, {other}\n")
    assert proposal.after == (
        f"from {drop_in.__name__} import {other}\nfrom {original} import {name}\n"
    )
    (remark,) = proposal.left_alone
    assert f"{drop_in.__name__}, whose {name} {why}" in remark.text


def test_an_import_of_several_lines_keeps_them():
    source = "from basicsr.losses import (\n    L1Loss,\n    GANLoss as Gan,\n    PixelLoss,\n)\n"
    assert propose(source).after == (
        "from ganloss_fast.compat.basicsr import GANLoss as Gan\n"
        "from basicsr.losses import (\n    L1Loss,\n    PixelLoss,\n)\n"
    )
    assert propose("from basicsr.losses import L1Loss, GANLoss\n").after == (
        "from ganloss_fast.compat.basicsr import GANLoss\nfrom basicsr.losses import L1Loss\n"
    )


@pytest.mark.parametrize(
    ("use", "why"),
    [
        ("class Mine(GANLoss):\n    pass\n", "a class here derives from"),
        ("if isinstance(criterion, (int, GANLoss)):\n    pass\n", "asked for"),
    ],
)
def test_a_class_that_is_more_than_called_stays(use, why):
    source = f"from basicsr.losses import GANLoss\n{use}"
    proposal = propose(source)
    assert proposal.after == source
    (remark,) = proposal.left_alone
    assert why in remark.text


SPOKEN_OF = [drop_in for *_, drop_in in drop_ins.OWN_IMPORTS]
SPOKEN_OF += [*drop_ins.OWN_CALLS.values(), *drop_ins.OWN_FUNCTIONS.values()]
SPOKEN_OF += drop_ins.OWN_CLASSES.values()


@pytest.mark.parametrize("text", sorted(set(SPOKEN_OF)))
def test_the_drop_ins_that_are_spoken_of_exist(text):
    for name in text.replace("(or ", "").replace(")", "").replace(",", "").split():
        importlib.import_module(f"ganloss_fast.compat.{name}")


@pytest.mark.parametrize(
    ("source", "drop_in"),
    [
        ("from models.networks import GANLoss, cal_gradient_penalty\n", "cyclegan"),
        ("from . import networks\nc = networks.GANLoss('lsgan')\n", "cyclegan"),
        ("from models import feature_loss, generator_loss, discriminator_loss\n", "hifigan"),
        ("from models import MultiPeriodDiscriminator, generator_loss\n", "hifigan"),
        (
            "from models import Generator, MultiPeriodDiscriminator, feature_loss, "
            "generator_loss, discriminator_loss\n",
            "hifigan",
        ),
        ("from training.loss import R3GANLoss\n", "r3gan"),
        ("from training.loss import StyleGAN2Loss\n", "stylegan2_ada"),
        ("from balancer import Balancer\n", "encodec"),
        ("import utils.losses as losses\nx = losses.d_hinge(a, b, DDP=False)\n", "studiogan"),
        ("import basicsr.losses.gan_loss as gl\nl = gl.GANLoss('lsgan')\n", "basicsr"),
        ("from mmgen.models.losses import *\n", "mmgeneration"),
        (
            "from basicsr.losses.gan_loss import (\n    GANLoss,  # the criterion\n    other,\n)\n",
            "basicsr",
        ),
        (
            "class GANLoss:\n    def __init__(self, gan_mode, target_real_label=1.0):\n"
            "        pass\n",
            "cyclegan",
        ),
        ("def feature_loss(fmap_r, fmap_g):\n    return 0\n", "hifigan"),
    ],
)
def test_a_loss_that_may_be_the_users_own_is_only_spoken_of(source, drop_in):
    proposal = propose(source)
    assert proposal.after == source
    (remark,) = proposal.left_alone
    assert f"there is a drop-in: ganloss_fast.compat.{drop_in}" in remark.text


@pytest.mark.parametrize(
    "source", ["from models import GANLossless\n", "def feature_loss(a, b):\n    return 0\n"]
)
def test_other_names_are_not_spoken_of(source):
    assert not propose(source).left_alone
