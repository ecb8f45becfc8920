"""torchgan's losses beside the adversarial ones: fifty steps of each beside plain PyTorch."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ganloss_fast.compat import torchgan


class Generator(nn.Module):
    encoding_dims, num_classes = 3, 4

    def __init__(self, label_type="none"):
        super().__init__()
        self.label_type = label_type
        self.layer, self.of_label = nn.Linear(3, 2), nn.Embedding(4, 2)

    def forward(self, noise, labels=None):
        found = self.layer(noise)
        return found if labels is None else found + self.of_label(labels)


class Discriminator(nn.Module):
    def __init__(self, label_type="none"):
        super().__init__()
        self.label_type, self.embeddings = label_type, True
        self.features = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Dropout(0.2))
        self.classes, self.logit = nn.Linear(6, 4), nn.Linear(6, 1)

    def forward(self, x, labels=None, mode="discriminator", feature_matching=False):
        found = self.features(x)
        if labels is not None:
            found = found + F.one_hot(labels, 6)
        if feature_matching:
            return found
        if mode == "classifier":
            return self.classes(found)
        return found, self.logit(found)


class Coded(Generator):
    def forward(self, noise, discrete, continuous):
        return self.layer(noise) + F.one_hot(discrete, 2) * continuous


class Recognition(Discriminator):
    def forward(self, x, return_latents=True):
        found = self.features(x)
        discrete = torch.distributions.Categorical(logits=self.classes(found)[:, :2])
        return self.logit(found), discrete, torch.distributions.Normal(self.logit(found), 1.0)


def train(step, g, d):
    torch.manual_seed(5)
    g, d = copy.deepcopy(g), copy.deepcopy(d)
    optimizers = [torch.optim.Adam(m.parameters(), 1e-2) for m in (g, d)]
    values = []
    for k in range(50):
        torch.manual_seed(k)
        real, labels = torch.randn(6, 2), torch.randint(0, 4, (6,))
        values.append(step(g, d, *optimizers, real, labels))
    return torch.tensor(values), nn.utils.parameters_to_vector([*g.parameters(), *d.parameters()])


def assert_trained_alike(ours, plain, g, d):
    for mine, right in zip(train(ours, g, d), train(plain, g, d)):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-6)


def backward_and_step(loss, optimizer):
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("label_type", ["required", "generated"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_auxiliary_classifiers(label_type, reduction):
    losses = (
        torchgan.AuxiliaryClassifierDiscriminatorLoss(reduction),
        torchgan.AuxiliaryClassifierGeneratorLoss(reduction),
    )

    def drawn(labels):
        return torch.randint(0, 4, (6,)) if label_type == "generated" else labels

    def ours(g, d, of_g, of_d, real, labels):
        value = losses[0].train_ops(g, d, of_d, real, "cpu", labels)
        return value, losses[1].train_ops(g, d, of_g, "cpu", 6, labels)

    def plain(g, d, of_g, of_d, real, labels):
        noise = torch.randn(6, 3)
        of_d.zero_grad()
        cx = d(real, mode="classifier")
        wanted = drawn(labels)
        cgz = d(g(noise, wanted), mode="classifier")  # torchgan leaves the generator's graph
        loss = F.cross_entropy(cgz, wanted, reduction=reduction)
        value = backward_and_step(loss + F.cross_entropy(cx, labels, reduction=reduction), of_d)
        noise = torch.randn(6, 3)
        of_g.zero_grad()
        wanted = drawn(labels)
        cgz = d(g(noise, wanted), mode="classifier")
        return value, backward_and_step(F.cross_entropy(cgz, wanted, reduction=reduction), of_g)

    assert_trained_alike(ours, plain, Generator(label_type), Discriminator())


@pytest.mark.parametrize(
    ("g_labels", "d_labels"),
    [("none", "none"), ("required", "required"), ("generated", "generated")],
)
def test_feature_matching(g_labels, d_labels):
    loss = torchgan.FeatureMatchingGeneratorLoss()

    def ours(g, d, of_g, of_d, real, labels):
        return loss.train_ops(g, d, of_g, real, "cpu", labels)

    def plain(g, d, of_g, of_d, real, labels):
        noise = torch.randn(6, 3)
        of_g.zero_grad()
        wanted = torch.randint(0, 4, (6,)) if g_labels == "generated" else labels
        fake = g(noise) if g_labels == "none" else g(noise, wanted)
        beside = [] if d_labels == "none" else [wanted]
        fx = d(real, *beside, feature_matching=True)
        return backward_and_step(F.mse_loss(d(fake, *beside, feature_matching=True), fx), of_g)

    assert_trained_alike(ours, plain, Generator(g_labels), Discriminator(d_labels))


def test_embeddings_are_pulled_away():
    loss = torchgan.EnergyBasedPullingAwayTerm(pt_ratio=0.3)

    def ours(g, d, of_g, of_d, real, labels):
        return loss.train_ops(g, d, of_g, "cpu", 6)

    def plain(g, d, of_g, of_d, real, labels):
        noise = torch.randn(6, 3)
        of_g.zero_grad()
        rows = F.normalize(d(g(noise))[0], p=2, dim=0)
        return backward_and_step(0.3 * (rows @ rows.T).square().sum() / 30, of_g)

    assert_trained_alike(ours, plain, Generator(), Discriminator())
    blind = Discriminator()
    blind.embeddings = False
    with pytest.raises(ValueError, match="discriminator: expected one that auto-encodes"):
        loss.train_ops(Generator(), blind, None, "cpu", 6)
    with pytest.raises(ValueError, match="generator: expected one without labels"):
        loss.train_ops(Generator("required"), Discriminator(), None, "cpu", 6)


def test_codes_are_recognised():
    """torchgan's penalty loses its gradient, and its own step fails at the backward."""
    loss = torchgan.MutualInformationPenalty(lambd=0.7)
    assert isinstance(loss, torchgan.GeneratorLoss)
    assert isinstance(loss, torchgan.DiscriminatorLoss)

    def codes():
        return torch.randint(0, 2, (6,)), torch.randn(6, 1)

    def ours(g, d, of_g, of_d, real, labels):
        return loss.train_ops(g, d, of_g, of_d, *codes(), "cpu", 6)

    def plain(g, d, of_g, of_d, real, labels):
        discrete, continuous = codes()
        noise = torch.randn(6, 3)
        of_g.zero_grad()
        of_d.zero_grad()
        _, of_discrete, of_continuous = d(g(noise, discrete, continuous))
        likelihood = (
            of_discrete.log_prob(discrete).mean() + of_continuous.log_prob(continuous).mean()
        )
        value = -0.7 * likelihood / 2
        value.backward()
        of_d.step()
        of_g.step()
        return value.item()

    assert_trained_alike(ours, plain, Coded(), Recognition())


@pytest.mark.parametrize("side", ["generator", "discriminator"])
def test_historical_averages(side):
    make = {
        "generator": torchgan.HistoricalAverageGeneratorLoss,
        "discriminator": torchgan.HistoricalAverageDiscriminatorLoss,
    }[side]
    seen = {}

    def pick(g, d, of_g, of_d):
        return (g, of_g) if side == "generator" else (d, of_d)

    def nudged(network):
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.1 * torch.randn_like(p))

    def ours(g, d, of_g, of_d, real, labels):
        network, optimizer = pick(g, d, of_g, of_d)
        loss = seen.setdefault("ours", make(lambd=0.3))
        value = loss.train_ops(network, optimizer)
        nudged(network)
        return value

    def plain(g, d, of_g, of_d, real, labels):
        network, optimizer = pick(g, d, of_g, of_d)
        sums = seen.setdefault("sums", [])
        value = 0.0
        if sums:
            optimizer.zero_grad()
            steps = seen["steps"]
            loss = sum(((p - s / steps) ** 2).sum() for p, s in zip(network.parameters(), sums))
            for p, s in zip(network.parameters(), sums):
                s += p.detach()
            value = backward_and_step(0.3 * loss, optimizer)
        else:
            sums.extend(p.detach().clone() for p in network.parameters())
        seen["steps"] = seen.get("steps", 0) + 1
        nudged(network)
        return value

    assert_trained_alike(ours, plain, Generator(), Discriminator())
    assert seen["ours"].timesteps == 50


def test_steps_may_be_replaced():
    seen = []

    def count(*arguments):
        seen.append(len(arguments))

    calls = {
        torchgan.AuxiliaryClassifierGeneratorLoss: (5, 6),
        torchgan.AuxiliaryClassifierDiscriminatorLoss: (5, 6),
        torchgan.FeatureMatchingGeneratorLoss: (5, 5),
        torchgan.EnergyBasedPullingAwayTerm: (5, 6),
        torchgan.MutualInformationPenalty: (8, 8),
        torchgan.HistoricalAverageGeneratorLoss: (2, 3),
        torchgan.HistoricalAverageDiscriminatorLoss: (2, 3),
    }
    for make, (given, expected) in calls.items():
        make(override_train_ops=count).train_ops(*[None] * given)
        assert seen.pop() == expected, make


def test_missing_labels_are_named():
    generator, discriminator = Generator("required"), Discriminator()
    with pytest.raises(ValueError, match="labels: the model needs labels"):
        torchgan.AuxiliaryClassifierGeneratorLoss().train_ops(
            generator, discriminator, None, "cpu", 6
        )
    with pytest.raises(ValueError, match="labels: the classifier learns"):
        torchgan.AuxiliaryClassifierDiscriminatorLoss().train_ops(
            generator, discriminator, None, torch.zeros(6, 2), "cpu"
        )
    with pytest.raises(ValueError, match="generator: an auxiliary classifier needs"):
        torchgan.AuxiliaryClassifierGeneratorLoss().train_ops(
            Generator(), discriminator, None, "cpu", 6
        )


TRAINER = """
import sys, types
from torch import nn
loss = types.ModuleType("torchgan.losses.loss")
class GeneratorLoss(nn.Module):
    def __init__(self, reduction="mean", override_train_ops=None):
        super().__init__()
class DiscriminatorLoss(GeneratorLoss): pass
loss.GeneratorLoss, loss.DiscriminatorLoss = GeneratorLoss, DiscriminatorLoss
for name in ("torchgan", "torchgan.losses"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
sys.modules["torchgan.losses"].loss = loss
from ganloss_fast.compat import torchgan
assert isinstance(torchgan.MinimaxGeneratorLoss(nonsaturating=False), GeneratorLoss)
assert isinstance(torchgan.MinimaxDiscriminatorLoss("sum"), DiscriminatorLoss)
assert isinstance(torchgan.WassersteinGradientPenalty(lambd=3.0), DiscriminatorLoss)
assert torchgan.WassersteinGradientPenalty(lambd=3.0).lambd == 3.0
assert torchgan.MinimaxGeneratorLoss("sum").reduction == "sum"
"""


def test_its_trainer_takes_the_losses_for_its_own():
    """It passes over losses that are no instances of its own classes."""
    subprocess.run([sys.executable, "-c", TRAINER], check=True)
