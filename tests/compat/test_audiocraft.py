"""AudioCraft's adversarial losses, its wrapper of a step, and its balancer."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from drop_in_cases import (
    DTYPES,
    TOLERANCE,
    assert_same,
    assert_training_agrees,
    draw,
    maps_and_logits,
    waveform_generator,
    waveforms,
)
from torch import nn

import ganloss_fast as gf
from ganloss_fast.compat import audiocraft as ac

PLAIN = {
    "mse": (lambda x: ((x - 1) ** 2).mean(), lambda x: ((x - 1) ** 2).mean()),
    "hinge": (lambda x: -x.mean(), lambda x: F.relu(1 - x).mean()),
    "hinge2": (lambda x: F.relu(1 - x).mean(), lambda x: F.relu(1 - x).mean()),
}


def plain_fake(kind):
    return (lambda x: (x**2).mean()) if kind == "mse" else (lambda x: F.relu(1 + x).mean())


# ---- criteria ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ac.ADVERSARIAL_LOSSES)
def test_criteria_are_the_formulas(kind, dtype, backend):
    logits = draw((2, 1, 9, 4), dtype=dtype)
    of_generator, of_real = PLAIN[kind]
    with gf.use_backend(backend):
        assert_same(ac.get_adv_criterion(kind), of_generator, logits)
        assert_same(ac.get_real_criterion(kind), of_real, logits)
        assert_same(ac.get_fake_criterion(kind), plain_fake(kind), logits)


@pytest.mark.parametrize("kind", ac.ADVERSARIAL_LOSSES)
def test_no_logits_are_a_zero_for_the_generator(kind):
    loss = ac.get_adv_criterion(kind)(torch.zeros(2, 0))
    assert torch.equal(loss, torch.zeros(1))


def test_unknown_criteria_are_explained():
    for get in (ac.get_adv_criterion, ac.get_fake_criterion, ac.get_real_criterion):
        with pytest.raises(ValueError, match="expected one of mse, hinge, hinge2, got 'wgan'"):
            get("wgan")


# ---- feature matching --------------------------------------------------------------------------


def plain_features(distance, normalize):
    def loss(fakes, reals):
        parts = [distance(f, r) for f, r in zip(fakes, reals)]
        return sum(parts) / (len(parts) if normalize else 1)

    return loss


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("distance", [nn.L1Loss(), nn.MSELoss(), nn.SmoothL1Loss()], ids=repr)
def test_features_of_one_discriminator(distance, normalize, dtype):
    shapes = [(2, 3, 7), (2, 4, 3, 2), (2, 5)]
    ours = ac.FeatureMatchingLoss(distance, normalize)
    assert_same(ours, plain_features(distance, normalize), *draw(shapes, shapes, dtype=dtype))


def test_features_are_l1_and_averaged_by_default():
    shapes = [(2, 3, 7), (2, 5)]
    assert_same(ac.FeatureMatchingLoss(), plain_features(F.l1_loss, True), *draw(shapes, shapes))


# ---- the wrapper -------------------------------------------------------------------------------


class Plain:
    """AdversarialLoss, logit by logit."""

    def __init__(self, adversary, optimizer, kind, normalize, features):
        self.adversary, self.optimizer = adversary, optimizer
        self.criteria = (*PLAIN[kind], plain_fake(kind))
        self.normalize, self.features = normalize, features

    def _total(self, parts):
        return sum(parts) / (len(parts) if self.normalize else 1)

    def train_adv(self, fake, real):
        fakes, reals = self.adversary(fake.detach())[0], self.adversary(real)[0]
        _, of_real, of_fake = self.criteria
        loss = self._total([of_fake(f) + of_real(r) for f, r in zip(fakes, reals)])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def __call__(self, fake, real):
        self.adversary.requires_grad_(False)
        (logits, fakes), (_, reals) = self.adversary(fake), self.adversary(real)
        self.adversary.requires_grad_(True)
        features = plain_features(F.l1_loss, True)
        return (
            self._total([self.criteria[0](f) for f in logits]),
            self._total([features(f, r) for f, r in zip(fakes, reals)])
            if self.features
            else torch.zeros(()),
        )


def wrapped(adversary, optimizer, kind, normalize=True, features=True, own=False):
    """With the module's criteria, or with the same as callables that it does not know."""
    of_generator, of_real = PLAIN[kind]
    criteria = (of_generator, of_real, plain_fake(kind))
    feature_loss = plain_features(F.l1_loss, True)
    if not own:
        criteria = tuple(
            get(kind)
            for get in (ac.get_adv_criterion, ac.get_real_criterion, ac.get_fake_criterion)
        )
        feature_loss = ac.FeatureMatchingLoss()
    loss_feat = feature_loss if features else None
    return ac.AdversarialLoss(adversary, optimizer, *criteria, loss_feat, normalize)


@pytest.mark.parametrize("own", [False, True], ids=["its criteria", "own callables"])
@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", ac.ADVERSARIAL_LOSSES)
def test_both_halves_of_a_step_are_the_formulas(kind, normalize, features, own):
    results = []
    fake, real = torch.randn(2, 2, 1, 16, generator=torch.Generator().manual_seed(3))
    for make in (wrapped, Plain):
        torch.manual_seed(0)
        adversary = maps_and_logits()
        optimizer = torch.optim.SGD(adversary.parameters(), 0.1)
        options = {"own": own} if make is wrapped else {}
        loss = make(adversary, optimizer, kind, normalize, features, **options)
        leaf = fake.clone().requires_grad_()
        trained = loss.train_adv(leaf, real)
        assert leaf.grad is None
        for parameter in adversary.parameters():
            parameter.grad = None
        adv, feat = loss(leaf, real)
        (adv + 2 * feat).backward()
        assert all(p.grad is None and p.requires_grad for p in adversary.parameters())
        results.append([trained, adv, feat, leaf.grad, *adversary.parameters()])
    for ours, theirs in zip(*results):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[torch.float32], atol=1e-6)


def test_criteria_of_two_kinds_may_be_mixed():
    torch.manual_seed(0)
    adversary = maps_and_logits()
    fake, real = torch.randn(2, 2, 1, 16)
    loss = ac.AdversarialLoss(
        adversary,
        torch.optim.SGD(adversary.parameters(), 0.0),
        ac.hinge_loss,
        ac.mse_real_loss,
        ac.hinge_fake_loss,
    )
    pairs = zip(adversary(fake)[0], adversary(real)[0])
    wanted = sum(F.relu(1 + f).mean() + ((r - 1) ** 2).mean() for f, r in pairs) / 2
    torch.testing.assert_close(loss.train_adv(fake, real), wanted)


def test_an_empty_output_counts_as_a_zero():
    class Adversary(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return [self.layer(x), x[:, :0]], [[x], [x]]

    adversary = Adversary()
    loss = wrapped(adversary, torch.optim.SGD(adversary.parameters(), 0.1), "mse", features=False)
    x = torch.randn(2, 4)
    adv, _ = loss(x, x)
    torch.testing.assert_close(adv, ((adversary.layer(x) - 1) ** 2).mean() / 2)


def test_the_optimizer_is_saved_with_the_module():
    losses = []
    for _ in range(2):
        adversary = maps_and_logits()
        losses.append(wrapped(adversary, torch.optim.Adam(adversary.parameters()), "mse"))
    losses[0].train_adv(*torch.randn(2, 2, 1, 16))
    state = losses[0].state_dict()
    assert {name.partition(".")[0] for name in state} == {"optimizer", "adversary"}
    losses[1].load_state_dict(state)
    assert losses[1].optimizer.state_dict()["state"][0]["step"] == 1


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((torch.zeros(2), [[]]), r"list of tensors as logits, got a tensor of shape \[2\]"),
        (([1.0], [[]]), r"as logits, got float \(1.0\) in entry 0"),
        (([torch.zeros(2)], [torch.zeros(2)]), "a list of feature maps for each of its logits"),
    ],
)
def test_an_adversary_of_another_form_is_explained(output, message):
    class Adversary(nn.Linear):
        def forward(self, x):
            return output

    adversary = Adversary(1, 1)
    loss = wrapped(adversary, torch.optim.SGD(adversary.parameters(), 0.1), "mse")
    with pytest.raises(TypeError, match=message):
        loss(torch.zeros(1, 1), torch.zeros(1, 1))


def test_signatures_are_the_published_ones():
    names = list(inspect.signature(ac.AdversarialLoss.__init__).parameters)
    wanted = ["adversary", "optimizer", "loss", "loss_real", "loss_fake", "loss_feat", "normalize"]
    assert names == ["self", *wanted]
    assert list(inspect.signature(ac.Balancer.__init__).parameters)[1:4] == [
        "weights",
        "balance_grads",
        "total_norm",
    ]


# ---- the balancer ------------------------------------------------------------------------------


@pytest.mark.parametrize("balance_grads", [True, False])
def test_the_balancer_returns_the_effective_loss(balance_grads):
    torch.manual_seed(0)
    output = nn.Linear(3, 3)(torch.randn(4, 3))
    losses = {"a": output.square().mean(), "b": output.abs().mean()}
    norms = {
        name: torch.autograd.grad(loss, output, retain_graph=True)[0].norm(dim=1).mean()
        for name, loss in losses.items()
    }
    weights = {"a": 1.0, "b": 3.0}
    wanted = sum(
        (weights[n] / 4 / norms[n] if balance_grads else weights[n]) * losses[n] for n in losses
    )
    balancer = ac.Balancer(weights, balance_grads, total_norm=0, ema_decay=0, monitor=True)
    effective = balancer.backward(losses, output)
    torch.testing.assert_close(effective, wanted.detach())
    whole = norms["a"] + norms["b"]
    assert balancer.metrics["ratio_b"] == pytest.approx((norms["b"] / whole).item())


@pytest.mark.parametrize("kind", ["mse", "hinge2"])
def test_fifty_steps_agree(kind):
    def step_with(make):
        def step(generator, critic, of_generator, of_critic, noise, real):
            loss = make(critic, of_critic, kind, True, True)
            fake = generator(noise)
            loss.train_adv(fake, real)
            of_generator.zero_grad()
            adv, feat = loss(fake, real)
            (adv + feat).backward()
            of_generator.step()

        return step

    torch.manual_seed(0)
    networks = waveform_generator(), maps_and_logits()
    assert_training_agrees(step_with(wrapped), step_with(Plain), networks, waveforms)
