"""Drop-ins that give several losses: each may be walked back alone, as in the codebase.

Wherever the formula in plain PyTorch lets a part go back after others without ``retain_graph``, the
drop-in does too, with the same gradients. Those that do not are named here and in the
documentation, and by their annotations no function that gives several tensors can stay away.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves

import ganloss_fast.compat
from ganloss_fast.compat import (
    amp,
    audiocraft,
    basicsr,
    biggan,
    bigvgan,
    ctgan,
    cut,
    cyclegan,
    dac,
    hifigan,
    lecam,
    mmagic,
    monai,
    parallel_wavegan,
    torchgan,
    vits,
)

DOCS = Path(__file__).resolve().parents[2] / "docs" / "compat"

# ---- networks whose backward needs nothing that the first walk frees ----------------------------


class Scaled(nn.Module):
    """One feature map and the logits of two discriminators."""

    def forward(self, x):
        return [[3 * x, 2 * x], [x + 1, -x]]


class Adversary(Scaled):
    def forward(self, x):
        lists = super().forward(x)
        return [maps[-1] for maps in lists], lists


def gram(x):
    flat = x.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def perceptual(module):
    loss = module.PerceptualLoss(
        {"a": 0.5, "b": 2.0},
        use_input_norm=False,
        style_weight=3.0,
        network=lambda x: {"a": 2 * x.view(1, 2, 2, 4), "b": x.view(1, 2, 2, 4) - 1},
        **({"norm_img": False} if module is mmagic else {}),
    )

    def plain(x, y):
        x, y = x.view(1, 2, 2, 4), y.detach().view(1, 2, 2, 4)
        pairs = [(0.5, 2 * x, 2 * y), (2.0, x - 1, y - 1)]
        return (
            sum(w * (a - b).abs().mean() for w, a, b in pairs),
            3 * sum(w * (gram(a) - gram(b)).abs().mean() for w, a, b in pairs),
        )

    return loss, plain


def plain_ctgan(critic):
    def losses(real, fake):
        real, fake = real.reshape(8, 2), fake.detach().reshape(8, 2)  # as documented
        alpha = torch.rand(4, 1, 1).repeat(1, 2, 2).view(-1, 2)
        x = alpha * real + (1 - alpha) * fake
        loss = critic(fake).mean() - critic(real).mean()
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        return loss, ((g.view(-1, 4).norm(dim=1) - 1) ** 2).mean() * 10.0

    return losses


def of_ctgan():
    torch.manual_seed(0)
    critic = ctgan.Discriminator(2, (5,), pac=2).double().eval()

    def ours(real, fake):
        return ctgan.discriminator_losses(critic, real.reshape(8, 2), fake.reshape(8, 2))

    return ours, plain_ctgan(critic), list(critic.parameters())


class Motions(nn.Module):
    loss_type, use_minibatch_std = "BCEWithLogits", False

    def __init__(self):
        super().__init__()
        self.trunk, self.linear = nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.Linear(3, 1)


def of_amp():
    torch.manual_seed(0)
    model = Motions().double()

    def split(x):
        return x.reshape(4, 4).split(2, -1)

    def plain(policy, expert):
        x = expert.reshape(4, 4).detach().requires_grad_()
        (g,) = torch.autograd.grad(model.linear(model.trunk(x)).sum(), x, create_graph=True)
        bce = F.softplus(-expert, threshold=40).mean() + F.softplus(policy, threshold=40).mean()
        return 0.5 * bce, 5 * g.square().sum(1).mean()

    def ours(policy, expert):
        return amp.compute_loss(model, policy, expert, split(expert), split(policy))

    return ours, plain, list(model.parameters())


def penalty_of(module):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(2, 8, dtype=torch.float64))

    def critic(x):
        return (x.flatten(1) @ weight.flatten()).tanh()

    def plain(real, fake):
        alpha = torch.rand(1, 1).to(real)
        x = alpha * real[None] + (1 - alpha) * fake[None]
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        g = g.flatten(1)
        return ((g + 1e-16).norm(2, dim=1) - 1).square().mean() * 10, g

    def ours(real, fake):
        return module.cal_gradient_penalty(critic, real[None], fake[None], "cpu")

    return ours, plain, [weight]


# ---- (drop-in, formula, further leaves) of two tensors [2, 8] -----------------------------------


def softplus(x):
    return F.softplus(x, threshold=40).mean()


def hinge(x):
    return F.relu(1 + x).mean()


def sides(function, real, fake):
    """Of (fake, real), as these codebases take them."""
    return lambda f, r: function(f, r), lambda f, r: (real(r), fake(f)), []


def least_squares_of(module):
    def plain(r, f):
        parts = [(1 - r).square().mean(), (1 - f).square().mean()]
        return sum(parts), parts

    return lambda r, f: module.generator_loss([r, f]), plain, []


def began(reduction):
    def plain(r, f):
        parts = [x if reduction == "none" else getattr(x, reduction)() for x in (r, f)]
        return parts[0] - 0.3 * parts[1], *parts

    def ours(r, f):
        return torchgan.boundary_equilibrium_discriminator_loss(r, f, 0.3, reduction)

    return ours, plain, []


def of_began_class():
    def ours(r, f):
        loss = torchgan.BoundaryEquilibriumDiscriminatorLoss(init_k=0.3)
        return loss(r, f)

    return ours, began("mean")[1], []


def of_dac():
    def plain(fake, real):
        fakes, reals = Scaled()(fake), Scaled()(real)
        return (
            sum((1 - f[-1]).square().mean() for f in fakes),
            sum((f[0] - r[0].detach()).abs().mean() for f, r in zip(fakes, reals)),
        )

    return dac.GANLoss(Scaled()).generator_loss, plain, []


def of_audiocraft():
    adversary = Adversary()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    loss = audiocraft.AdversarialLoss(
        adversary,
        optimizer,
        *(audiocraft.mse_loss, audiocraft.mse_real_loss, audiocraft.mse_fake_loss),
        audiocraft.FeatureMatchingLoss(),
    )

    def plain(fake, real):
        logits, fakes = adversary(fake)
        reals = adversary(real)[1]
        pairs = [(f, r) for fs, rs in zip(fakes, reals) for f, r in zip(fs, rs)]
        return (
            sum((1 - x).square().mean() for x in logits) / 2,
            sum((f - r).abs().mean() for f, r in pairs) / 4,
        )

    return loss, plain, []


def of_monai(criterion):
    loss = monai.PatchAdversarialLoss("none", criterion, no_activation_leastsq=True)

    def plain(r, f):
        if criterion == "hinge":
            return [F.relu(1 - x.tanh()).mean() for x in (r, f)]
        if criterion == "bce":
            return [F.softplus(-x, threshold=40) for x in (r, f)]
        return [(x - 1).square() for x in (r, f)]

    return lambda r, f: loss([r, f], True, True), plain, []


def of_parallel_wavegan(kind):
    def plain(f, r):
        if kind == "mse":
            return (1 - r).square().mean(), f.square().mean()
        return hinge(-r), hinge(f)

    loss = parallel_wavegan.DiscriminatorAdversarialLoss(loss_type=kind)
    return lambda f, r: loss([f], [r]), plain, []


def rahinge(f, r):
    return hinge(f.mean() - r) / 2, hinge(f - r.mean()) / 2


CASES = {
    "biggan.loss_dcgan_dis": lambda: sides(biggan.loss_dcgan_dis, lambda r: softplus(-r), softplus),
    "biggan.loss_hinge_dis": lambda: sides(biggan.loss_hinge_dis, lambda r: hinge(-r), hinge),
    "lecam.loss_dcgan_dis": lambda: sides(lecam.loss_dcgan_dis, lambda r: softplus(-r), softplus),
    "lecam.loss_hinge_dis": lambda: sides(lecam.loss_hinge_dis, lambda r: hinge(-r), hinge),
    "lecam.loss_ls_dis": lambda: sides(
        lecam.loss_ls_dis, lambda r: (r + 1).square().mean(), lambda f: (f - 1).square().mean()
    ),
    "lecam.loss_rahinge_dis": lambda: (lecam.loss_rahinge_dis, rahinge, []),
    "torchgan.boundary_equilibrium_discriminator_loss": lambda: began("mean"),
    "torchgan.boundary_equilibrium_discriminator_loss sum": lambda: began("sum"),
    "torchgan.boundary_equilibrium_discriminator_loss none": lambda: began("none"),
    "torchgan.BoundaryEquilibriumDiscriminatorLoss.forward": of_began_class,
    "hifigan.generator_loss": lambda: least_squares_of(hifigan),
    "bigvgan.generator_loss": lambda: least_squares_of(bigvgan),
    "vits.generator_loss": lambda: least_squares_of(vits),
    "parallel_wavegan.DiscriminatorAdversarialLoss.forward": lambda: of_parallel_wavegan("mse"),
    "parallel_wavegan.DiscriminatorAdversarialLoss.forward hinge": lambda: of_parallel_wavegan(
        "hinge"
    ),
    "dac.GANLoss.generator_loss": of_dac,
    "audiocraft.AdversarialLoss.forward": of_audiocraft,
    "monai.PatchAdversarialLoss.forward": lambda: of_monai("least_squares"),
    "monai.PatchAdversarialLoss.forward bce": lambda: of_monai("bce"),
    "monai.PatchAdversarialLoss.forward hinge": lambda: of_monai("hinge"),
    "basicsr.PerceptualLoss.forward": lambda: (*perceptual(basicsr), []),
    "mmagic.PerceptualLoss.forward": lambda: (*perceptual(mmagic), []),
    "ctgan.discriminator_losses": of_ctgan,
    "amp.compute_loss": of_amp,
    "cyclegan.cal_gradient_penalty": lambda: penalty_of(cyclegan),
    "cut.cal_gradient_penalty": lambda: penalty_of(cut),
}

# One kernel for all of them, which docs/compat/audio_and_tokenizers.md says.
SHARED = {"hifigan.generator_loss", "bigvgan.generator_loss", "vits.generator_loss"}

# Of what they give, one tensor has a graph: the rest is detached, a number or for the log. Or they
# are methods of a step, whose results are not losses.
ONE_GRAPH = {
    "amp.motion_prior_loss",
    "basicsr.g_path_regularize",
    *[f"{name}.discriminator_loss" for name in ("bigvgan", "hifigan", "vits")],
    "latent_diffusion.measure_perplexity",
    "mmagic.gen_path_regularizer",
    "mmgeneration.gen_path_regularizer",
    "stylegan2_rosinality.g_path_regularize",
    *[
        f"{name}.forward"
        for name in (
            "latent_diffusion.LPIPSWithDiscriminator",
            "latent_diffusion.VQLPIPSWithDiscriminator",
            "mmgeneration.GeneratorPathRegularizer",
            "seed_voken.VQLPIPSWithDiscriminator",
            "taming.VQLPIPSWithDiscriminator",
            "titok.ReconstructionLoss_Single_Stage",
            "titok.ReconstructionLoss_Stage2",
        )
    ],
}
NO_LOSSES = {"dac.GANLoss.forward"}
OTHER_NAMES = {
    f"{name}.discriminator_loss": f"{name}.loss_hinge_dis" for name in ("biggan", "lecam")
}


def graphed(result):
    return [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.requires_grad]


def walked(function, further, order):
    """The gradients after each of the parts, as far as they go."""
    generator = torch.Generator().manual_seed(1)
    leaves = [torch.randn(2, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    torch.manual_seed(2)
    parts = graphed(function(*leaves))
    found = []
    for leaf in further:
        leaf.grad = None
    for k in order:
        try:
            parts[k].sum().backward()
        except RuntimeError:
            break
        found.append([None if t.grad is None else t.grad.clone() for t in (*leaves, *further)])
    return found


def orders(case):
    ours, _, _ = CASES[case]()
    count = len(graphed(ours(*(torch.rand(2, 8).double().requires_grad_() for _ in range(2)))))
    assert count > 1
    return list(itertools.permutations(range(count)))


@pytest.mark.parametrize("case", [name for name in CASES if name not in SHARED])
def test_parts_go_back_one_by_one_as_in_plain_pytorch(case):
    for order in orders(case):
        ours, plain, further = CASES[case]()
        wanted = walked(plain, further, order)
        found = walked(ours, further, order)
        assert len(found) >= len(wanted) >= 1, order
        for a, b in zip(found, wanted, strict=False):
            torch.testing.assert_close(
                [torch.zeros(()) if g is None else g for g in a],
                [torch.zeros(()) if g is None else g for g in b],
                rtol=1e-9,
                atol=1e-12,
            )


@pytest.mark.parametrize("case", sorted(SHARED))
def test_where_parts_share_a_graph_the_documentation_says_so(case):
    ours, _, further = CASES[case]()
    assert len(walked(ours, further, (1, 2))) == 1
    page = " ".join((DOCS / "audio_and_tokenizers.md").read_text().split())
    assert "share one graph" in page
    docstring = importlib.import_module(f"ganloss_fast.compat.{case.split('.')[0]}").generator_loss
    assert "share one graph" in " ".join(docstring.__doc__.split())


# ---- nobody is left out ------------------------------------------------------------------------


def several_tensors(function) -> bool:
    annotation = str(function.__annotations__.get("return", ""))
    return "Tensor" in annotation.replace("Tensor | None", "") and any(
        word in annotation for word in ("tuple[", "list[")
    )


def public_callables():
    for found in pkgutil.iter_modules(ganloss_fast.compat.__path__):
        if found.name.startswith("_"):
            continue
        module = importlib.import_module(f"ganloss_fast.compat.{found.name}")
        for name, value in vars(module).items():
            home = getattr(value, "__module__", None) or ""
            is_private = name.startswith("_") or not home.startswith("ganloss_fast.compat")
            is_helper = "._" in home and name not in getattr(module, "__all__", [])
            if is_private or is_helper:
                continue
            if inspect.isfunction(value):
                yield f"{found.name}.{name}", value
            elif inspect.isclass(value) and hasattr(value, "forward"):
                yield f"{found.name}.{name}.forward", value.forward


def test_every_drop_in_that_gives_several_tensors_is_walked_back():
    named = {case.split(" ")[0] for case in CASES} | ONE_GRAPH | NO_LOSSES
    several = {name for name, function in public_callables() if several_tensors(function)}
    assert {OTHER_NAMES.get(name, name) for name in several} - named == set()
