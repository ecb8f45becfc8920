"""The profile: what it finds in steps of which we know what they throw away."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from profiled_players import (
    AGAIN,
    DEAD,
    GENERATOR,
    LAYER,
    REAL,
    WEIGHTS,
    WIDTH,
    Players,
    critic_of,
)

from ganloss_fast.bench.profile import findings


def wasteful(p):
    fake = p.g(p.noise)
    p.of_d.zero_grad()
    (p.d(fake).mean() - p.d(p.real).mean()).backward(retain_graph=True)
    p.of_d.step()
    p.learn_g((p.d(fake) - p.d(p.real)).abs().mean())


def careful(p):
    fake = p.g(p.noise)
    p.learn_d(p.d(fake.detach()).mean() - p.d(p.real).mean())
    p.of_g.zero_grad()
    torch.autograd.backward(-p.d(fake).mean(), inputs=list(p.g.parameters()))
    p.of_g.step()


def penalty(p):
    points = p.real.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(p.d(points).sum(), points, create_graph=True)
    return gradient.square().sum(1).mean()


def penalised(p):
    fake = p.g(p.noise).detach()
    p.learn_d(p.d(fake).mean() - p.d(p.real).mean() + penalty(p))


@pytest.mark.parametrize(("step", "layers"), [(careful, 0), (penalised, 9)])
def test_loss_and_penalty_are_told_from_what_the_networks_do(step, layers):
    """Of a penalty on two layers: its forward (2), the inner gradient (2), and in the backward of
    that gradient the weights (2), what passes between the layers (1), and the zeros that go into
    the first layer again (2)."""
    ledger = Players().profile(step).ledger
    assert findings.loss_and_penalty(ledger).flops == layers * LAYER


def test_every_waste_is_found_with_its_flops():
    assert Players().found(wasteful) == {
        WEIGHTS: 2,
        REAL: 3,  # its first layer has no gradient to its input
        GENERATOR: 2,  # nor has the generator; what leads there, and its weights
    }


def test_findings_come_by_what_they_cost_and_their_sum_says_what_they_save():
    profile = Players().profile(wasteful)
    costs = [each.cost.flops for each in profile.findings]
    assert costs == sorted(costs, reverse=True)
    whole, saved = profile.ledger.total(), profile.together
    assert saved.flops == sum(costs)
    assert profile.speedup == pytest.approx(whole.seconds / (whole.seconds - saved.seconds))


def test_nothing_is_found_where_nothing_is_thrown_away():
    assert Players().found(careful) == {}


def test_the_parts_add_up_to_the_step():
    ledger = Players().profile(careful).ledger
    forwards = 3 * 2 + 1
    to_weights = 2 * 2 + 1  # the generator's step computes none of the discriminator's
    to_inputs = 2 + 2  # real and fake: the second layer; in the generator's step both
    assert ledger.total().flops == (forwards + to_weights + to_inputs) * LAYER


def repeating(p):
    """The discriminator does not move between the generator's step and its own."""
    p.of_g.zero_grad()
    fake = p.g(p.noise)
    torch.autograd.backward(-p.d(fake).mean(), inputs=list(p.g.parameters()))
    p.of_g.step()
    p.learn_d(p.d(fake.detach()).mean() - p.d(p.real).mean())


def test_a_second_forward_of_the_same_samples_is_found():
    assert Players().found(repeating) == {AGAIN: 2}


class NoisyAtFirst(nn.Module):
    """Draws in the first of the three forwards of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = critic_of(), 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x + torch.rand_like(x) if self.calls % 3 == 1 else x)


@pytest.mark.parametrize(
    "critic",
    [
        NoisyAtFirst(),
        critic_of(nn.Dropout(0.5)),
        nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))),
    ],
    ids=["noise", "dropout", "spectral norm"],
)
def test_a_second_forward_that_differs_is_no_finding_but_a_note(critic):
    result = Players(critic).profile(repeating)
    assert AGAIN not in {finding.what for finding in result.findings}
    assert any("would not be exact" in note for note in result.notes)


def test_the_dead_second_order_branch_is_found_and_a_genuine_one_is_not():
    def step(p):
        p.learn_d(penalty(p))

    # Below the activation: zeros for the first layer's weights, and for its input.
    assert Players().found(step).get(DEAD) == 2
    smooth = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
    assert DEAD not in Players(smooth).found(step)


def test_watching_changes_no_gradient_and_leaves_no_hook():
    players = Players()
    wasteful(players)
    before = [parameter.grad.clone() for parameter in players.d.parameters()]
    original = torch.autograd.grad
    players.profile(wasteful)
    assert torch.autograd.grad is original
    assert not players.d._forward_hooks
    assert not players.d._forward_pre_hooks
    for parameter, expected in zip(players.d.parameters(), before):
        torch.testing.assert_close(parameter.grad, expected)
