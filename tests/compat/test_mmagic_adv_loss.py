"""mmagic's criteria that call the discriminator themselves."""

from __future__ import annotations

import pytest
import torch
from image_codebases import (
    assert_near,
    assert_same_parameters_of,
    assert_trains_alike,
    critic,
    images,
    seeded,
)
from torch.nn import functional as F

from ganloss_fast.compat import mmagic


def bce(x, label):
    return F.binary_cross_entropy_with_logits(x, torch.full_like(x, float(label)))


class Plain:
    """One side a call, half of both."""

    def __init__(self, distance):
        self.distance = distance

    def __call__(self, net, fake, real, model):
        if model != "discriminator":
            return self.distance(net(fake), 1)
        return (self.distance(net(fake.detach()), 0) + self.distance(net(real), 1)) * 0.5


class PlainRelativistic:
    """About the means of the last 50 logits of a side."""

    def __init__(self, distance):
        self.distance = distance
        self.fakes, self.reals = [], []

    def __call__(self, net, fake, real, model):
        if model == "discriminator":
            f, r = net(fake.detach()), net(real)
            self.fakes = (self.fakes + list(f.detach()))[-50:]
            self.reals = (self.reals + list(r.detach()))[-50:]
        else:
            f, r = net(fake), net(real)
        above = r - torch.stack(self.fakes).mean()
        below = f - torch.stack(self.reals).mean()
        labels = (1, 0) if model == "discriminator" else (0, 1)
        return (self.distance(above, labels[0]) + self.distance(below, labels[1])) / 2


def plain_wgan_gp(net, fake, real, model):
    if model != "discriminator":
        return -net(fake).mean()
    f, r = net(fake.detach()).mean(), net(real).mean()
    alpha = torch.rand(real.shape[0], 1, 1, 1).to(real)
    x = (alpha * real + (1 - alpha) * fake).detach().requires_grad_()
    out = net(x)
    (g,) = torch.autograd.grad(out, x, torch.ones_like(out), create_graph=True)
    return f - r + 10 * ((g.norm(2, dim=1) - 1) ** 2).mean()


PLAIN = {
    "wgan-gp": lambda: plain_wgan_gp,
    "lsgan": lambda: Plain(lambda x, label: ((x - label) ** 2).mean()),
    "gan": lambda: Plain(bce),
    "ragan": lambda: PlainRelativistic(bce),
    "ragan-ls": lambda: PlainRelativistic(lambda x, label: ((x - 2 * label + 1) ** 2).mean()),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_both_players_losses_are_the_formulas(kind):
    D, ours, plain = seeded(critic), mmagic.AdvLoss(kind), PLAIN[kind]()
    for k, model in enumerate(("discriminator", "generator", "discriminator", "generator")):
        assert_same_parameters_of(
            lambda D, k=k, m=model: ours(D, images(k), images(k + 9), m),
            lambda D, k=k, m=model: plain(D, images(k), images(k + 9), m),
            D,
        )


@pytest.mark.parametrize("kind", PLAIN)
def test_fifty_steps_train_alike(kind):
    """13 batches of 4 are more than the pools of 50 hold."""

    def step_with(loss):
        def step(G, D, real, z):
            fake = G(z)
            critic_loss = loss(D, fake, real, "discriminator")
            return critic_loss, lambda: loss(D, fake, real, "generator")

        return step

    assert_trains_alike(step_with(mmagic.AdvLoss(kind)), step_with(PLAIN[kind]()))


def test_lsgan_is_l1_only_if_asked_for():
    loss = mmagic.AdvLoss("lsgan", l1_for_lsgan=True)
    plain = Plain(lambda x, label: (x - label).abs().mean())
    arguments = (seeded(critic), images(), images(1), "discriminator")
    assert_near(loss(*arguments), plain(*arguments), 1e-12)


def test_a_generator_before_any_discriminator_is_explained():
    with pytest.raises(ValueError, match="model: the generator's loss compares"):
        mmagic.AdvLoss("ragan")(seeded(critic), images(), images(), "generator")


def test_names_are_mmagics():
    names = [mmagic.AdvLoss(kind).name() for kind in PLAIN]
    assert names == [
        "DiscLossWGAN-GP",
        "DiscLoss",
        "DiscLoss",
        "RelativisticDiscLoss",
        "RelativisticDiscLossLS",
    ]


def test_unknown_types_list_the_known_ones():
    with pytest.raises(ValueError, match="loss_type: expected one of wgan-gp, lsgan, gan, ragan"):
        mmagic.AdvLoss("wgan")
