"""R3GAN: relativistic pairs, R1 and R2 of the same logits, one backward."""

from __future__ import annotations

import pytest
import torch
from image_codebases import Generator, Labelled, assert_near, images, logits, seeded
from torch.nn import functional as F

from ganloss_fast.compat.r3gan import AdversarialTraining, R3GANLoss


def softplus(x):
    return F.softplus(x, threshold=40)


def plain_phase(G, D, phase, real, z, gamma, gain, augment=lambda x: x):
    """The statistics of a phase, whose gradients it adds."""
    if phase == "G":
        logit = D(augment(G(z, None)), None) - D(augment(real), None)
        loss = softplus(-logit)
        (gain * loss.mean()).backward()
        return {
            "Loss/scores/fake": logit,
            "Loss/signs/fake": logit.sign(),
            "Loss/G/loss": loss,
        }
    real, fake = (x.detach().requires_grad_() for x in (real, G(z, None)))
    r, f = D(augment(real), None), D(augment(fake), None)
    penalties = []
    for x, scores in ((real, r), (fake, f)):
        (g,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        penalties.append(g.square().sum([1, 2, 3]))
    loss = softplus(-(r - f))
    (gain * (loss + gamma / 2 * sum(penalties)).mean()).backward()
    return {
        "Loss/scores/real": r - f,
        "Loss/signs/real": (r - f).sign(),
        "Loss/D/loss": loss,
        "Loss/r1_penalty": penalties[0],
        "Loss/r2_penalty": penalties[1],
    }


def networks():
    return seeded(Generator), seeded(Labelled, 2)


def assert_same_gradients(networks, others):
    for net, other in zip(networks, others, strict=True):
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            if q.grad is not None:
                assert_near(p.grad, q.grad, 1e-12)


def flip(x):
    return x.flip(3) * 1.1


@pytest.mark.parametrize("phase", ["G", "D"])
@pytest.mark.parametrize("gain", [1, 0.5])
@pytest.mark.parametrize("reports", [False, True])
@pytest.mark.parametrize("augment", [None, flip])
def test_a_phase_adds_the_gradients_of_the_formulas(phase, gain, reports, augment):
    stats, ours, plain = {}, networks(), networks()
    pipe = augment and (lambda x: augment(x.double()))  # which gets float32, as there
    loss = R3GANLoss(*ours, augment_pipe=pipe, report=stats.__setitem__ if reports else None)
    real, z = images(), logits(4, 4).detach()
    for nets in (ours, plain):
        for net, player in zip(nets, "GD", strict=True):
            net.requires_grad_(phase == player)
    loss.accumulate_gradients(phase, real, None, z, 2.0, gain)
    augmented = [lambda x: augment(x.float().double())] if augment else []
    wanted = plain_phase(*plain, phase, real, z, 2.0, gain, *augmented)
    assert_same_gradients(ours, plain)
    if reports:
        assert stats.keys() == wanted.keys()
        for name, values in wanted.items():
            assert_near(stats[name], values, 1e-12)
            assert not stats[name].requires_grad


def test_the_trainer_returns_lists_of_detached_samples():
    G, D = networks()
    trainer = AdversarialTraining(G, D)
    results = [
        trainer.AccumulateGeneratorGradients(logits(4, 4), images(), None),
        trainer.AccumulateDiscriminatorGradients(logits(4, 4), images(), None, 1.0),
    ]
    assert [len(result) for result in results] == [2, 4]
    for values in (value for result in results for value in result):
        assert values.shape == (4,)
        assert not values.requires_grad


def test_the_penalty_is_a_value_for_each_sample():
    D = seeded(Labelled)
    x = images().requires_grad_()
    actual = AdversarialTraining.ZeroCenteredGradientPenalty(x, D(x))
    (g,) = torch.autograd.grad(D(x).sum(), x)
    assert_near(actual, g.square().sum([1, 2, 3]), 1e-12)


def test_unknown_phases_list_the_known_ones():
    with pytest.raises(ValueError, match="phase: expected one of G, D, got 'Gmain'"):
        R3GANLoss(*networks()).accumulate_gradients("Gmain", None, None, None, 1.0, 1)


def test_fifty_steps_train_alike():
    ours, plain = networks(), networks()
    loss = R3GANLoss(*ours)

    def of_ours(phase, real, z):
        loss.accumulate_gradients(phase, real, None, z, gamma=0.2, gain=1)

    def of_plain(phase, real, z):
        plain_phase(*plain, phase, real, z, 0.2, 1)

    for nets, call in ((ours, of_ours), (plain, of_plain)):
        optimizers = {
            player: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
            for player, net in zip("GD", nets, strict=True)
        }
        torch.manual_seed(0)
        for k in range(50):
            for phase in "DG":
                optimizers[phase].zero_grad()
                call(phase, images(k), torch.randn(4, 4, dtype=torch.float64))
                optimizers[phase].step()
    for net, other in zip(ours, plain, strict=True):
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            assert_near(p, q, 1e-10)
