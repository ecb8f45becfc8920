"""StudioGAN's losses and penalties."""

from __future__ import annotations

import math

import pytest
import torch
from image_codebases import (
    DTYPES,
    Generator,
    Labelled,
    assert_near,
    assert_same,
    assert_same_parameters_of,
    assert_trains_alike,
    images,
    logits,
    seeded,
)
from torch import nn
from torch.nn import functional as F

from ganloss_fast.compat import studiogan


def softplus(x):
    return F.softplus(x, threshold=40)


PLAIN_D = {
    "vanilla": lambda r, f: softplus(-r).mean() + softplus(f).mean(),
    "logistic": lambda r, f: (softplus(-r) + softplus(f)).mean(),
    "ls": lambda r, f: (0.5 * (r - 1) ** 2 + 0.5 * f**2).mean(),
    "hinge": lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(),
    "wasserstein": lambda r, f: (f - r).mean(),
}
PLAIN_G = {
    "vanilla": lambda f: softplus(-f).mean(),
    "logistic": lambda f: softplus(-f).mean(),
    "ls": lambda f: (0.5 * (f - 1) ** 2).mean(),
    "hinge": lambda f: -f.mean(),
    "wasserstein": lambda f: -f.mean(),
}


def ours(side, kind):
    return getattr(studiogan, f"{side}_{kind}")


@pytest.mark.parametrize("kind", PLAIN_D)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("DDP", [(), (True,)])
def test_both_losses_are_the_formulas(kind, dtype, DDP):
    real, fake = logits(6, dtype=dtype), logits(6, dtype=dtype, seed=1)
    assert_same(lambda r, f: ours("d", kind)(r, f, *DDP), PLAIN_D[kind], real, fake)
    assert_same(lambda f: ours("g", kind)(f, *DDP), PLAIN_G[kind], fake)


@pytest.mark.parametrize("kind", PLAIN_D)
def test_fifty_steps_train_alike(kind):
    def step_with(d_loss, g_loss):
        def step(G, D, real, z):
            fake = G(z)
            return d_loss(D(real), D(fake.detach())), lambda: g_loss(D(fake))

        return step

    assert_trains_alike(
        step_with(ours("d", kind), ours("g", kind)),
        step_with(PLAIN_D[kind], PLAIN_G[kind]),
        Labelled,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_multi_hinge_is_the_formula(dtype):
    label = torch.tensor([0, 2, 1, 2, 0])

    def plain(x):
        total = []
        for row, y in zip(x, label, strict=True):
            others = torch.cat([row[:y], row[y + 1 :]])
            total.append(F.relu(1 + others.max() - row[y]))
        return torch.stack(total).mean()

    assert_same(
        lambda x: studiogan.crammer_singer_loss(x, label, DDP=False, embed=None),
        plain,
        logits(5, 3, dtype=dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_embeddings_are_matched_in_their_means(dtype):
    assert_same(
        studiogan.feature_matching_loss,
        lambda r, f: (f.mean(0) - r.mean(0)).abs().mean(),
        logits(4, 6, dtype=dtype),
        logits(5, 6, dtype=dtype, seed=1),
    )


def test_k_falls_to_its_bound():
    assert [studiogan.adjust_k(k, 0.9, 5) for k in (10, 5)] == [9, 5]


# ---- penalties ---------------------------------------------------------------------------------


class Conditional(nn.Module):
    """Scaled by the labels, in a dict, as this codebase's discriminators."""

    def __init__(self):
        super().__init__()
        self.critic = Labelled()

    def forward(self, x, labels, eval):
        assert eval is False
        return {"embed": x, "adv_output": self.critic(x) * labels}


LABELS = torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=torch.float64)


def gradient_norms(D, x):
    x = x.detach().requires_grad_()
    out = D(x, LABELS, eval=False)["adv_output"]
    (g,) = torch.autograd.grad(out, x, torch.ones_like(out), create_graph=True)
    return g.flatten(1).norm(2, dim=1)


def between():
    alpha = torch.rand(4, 1).view(4, 1, 1, 1)
    return alpha * images() + (1 - alpha) * images(1)


def around():
    alpha = torch.rand(4, 1, 1, 1)
    return images() + alpha * (0.5 * images().std() * torch.rand(images().size()))


PENALTIES = {
    "gp": (
        lambda D: studiogan.cal_grad_penalty(images(), LABELS, images(1), D, "cpu"),
        lambda D: ((gradient_norms(D, between()) - 1) ** 2).mean(),
    ),
    "dragan": (
        lambda D: studiogan.cal_dra_penalty(images(), LABELS, D, "cpu"),
        lambda D: ((gradient_norms(D, around()) - 1) ** 2).mean(),
    ),
    "maxgp": (
        lambda D: studiogan.cal_maxgrad_penalty(images(), LABELS, images(1), D, "cpu"),
        lambda D: (gradient_norms(D, between()) ** 2).max(),
    ),
}


@pytest.mark.parametrize(("penalty", "plain"), PENALTIES.values(), ids=PENALTIES)
def test_penalties_are_the_formulas(penalty, plain):
    assert_same_parameters_of(penalty, plain, seeded(Conditional))


def test_no_penalty_reaches_the_samples():
    real, fake = images().requires_grad_(), images(1).requires_grad_()
    D = seeded(Conditional)
    studiogan.cal_grad_penalty(real, LABELS, fake, D, "cpu").backward()
    studiogan.cal_dra_penalty(real, LABELS, D, "cpu").backward()
    assert real.grad is None
    assert fake.grad is None


@pytest.mark.parametrize("form", ["cal_r1_reg", "stylegan_cal_r1_reg"])
def test_r1_has_its_half_inside(form):
    def with_logits(function):
        def penalty(D):
            x = images().requires_grad_()
            return function(D(x), x)

        return penalty

    def plain(pred, x):
        (g,) = torch.autograd.grad(pred.sum(), x, create_graph=True)
        return 0.5 * g.pow(2).flatten(1).sum(1).mean()

    device = ("cpu",) if form == "cal_r1_reg" else ()
    assert_same_parameters_of(
        with_logits(lambda pred, x: getattr(studiogan, form)(pred, x, *device)),
        with_logits(plain),
        seeded(Labelled),
    )


def test_a_derivative_is_that_of_the_sum():
    x = logits(3, 2)
    (g,) = torch.autograd.grad((x**3).sum(), x)
    assert_near(studiogan.cal_deriv(x, x**3, "cpu"), g, 1e-12)


class Styled(Generator):
    """Images from latents [B, 3, 4]."""

    def forward(self, ws):
        return super().forward(ws.sum(1)) * ws.square().mean()


def test_path_length_keeps_its_mean():
    regularizer, mean = studiogan.PathLengthRegularizer("cpu", pl_decay=0.1), torch.zeros(())

    def of_ours(net):
        ws = logits(4, 3, 4)
        return regularizer.cal_pl_reg(net(ws), ws)

    def of_plain(net):
        ws = logits(4, 3, 4)
        x = net(ws)
        noise = torch.randn_like(x) / math.sqrt(x.shape[2] * x.shape[3])
        (g,) = torch.autograd.grad((x * noise).sum(), ws, create_graph=True)
        lengths = g.square().sum(2).mean(1).sqrt()
        new_mean = mean.double().lerp(lengths.mean(), 0.1)
        means.append(new_mean.detach())
        return 2 * (lengths - new_mean).square().mean()

    means = []
    for seed in range(2):
        assert_same_parameters_of(of_ours, of_plain, seeded(Styled), 1e-6, seed)
        mean = means[-1]
        assert_near(regularizer.pl_mean.double(), mean, 1e-6)
