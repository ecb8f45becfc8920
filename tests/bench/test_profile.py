"""The profile: what it finds in steps of which we know what they throw away."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import command
from ganloss_fast.bench.profile import findings, target

WEIGHTS = "weight gradients of the discriminator in the generator's step"
REAL = "the backward of the discriminator on samples that need no gradient, in the generator's step"
GENERATOR = "the backward of the generator in the discriminator's step"
AGAIN = "forwards of the discriminator that ran before, on the same samples and weights"
DEAD = "the second-order branch that carries exact zeros"

B, WIDTH = 16, 32
LAYER = 2 * B * WIDTH * WIDTH  # FLOPs of one linear layer


def layers(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.2), *more, nn.Linear(WIDTH, WIDTH))


def training(step, critic: nn.Module | None = None) -> target.Target:
    torch.manual_seed(0)
    generator, critic = nn.Linear(WIDTH, WIDTH), critic or layers()
    of_g = torch.optim.SGD(generator.parameters(), lr=0.0)
    of_d = torch.optim.SGD(critic.parameters(), lr=0.0)
    real, noise = torch.randn(2, B, WIDTH).unbind()

    def run() -> None:
        step(generator, critic, of_g, of_d, real, noise)

    return target.Target("test", run, [critic], [generator])


def wasteful(generator, critic, of_g, of_d, real, noise):
    of_d.zero_grad()
    fake = generator(noise)
    (critic(fake).mean() - critic(real).mean()).backward(retain_graph=True)
    of_d.step()
    of_g.zero_grad()
    matching = (critic(fake) - critic(real)).abs().mean()
    matching.backward()
    of_g.step()


def careful(generator, critic, of_g, of_d, real, noise):
    of_d.zero_grad()
    fake = generator(noise)
    (critic(fake.detach()).mean() - critic(real).mean()).backward()
    of_d.step()
    of_g.zero_grad()
    torch.autograd.backward(-critic(fake).mean(), inputs=list(generator.parameters()))
    of_g.step()


def found(step, critic=None) -> dict[str, int]:
    result = findings.profile(training(step, critic))
    return {finding.what: finding.cost.flops for finding in result.findings}


def penalised(generator, critic, of_g, of_d, real, noise):
    of_d.zero_grad()
    fake = generator(noise).detach()
    loss = critic(fake).mean() - critic(real).mean()
    points = real.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    (loss + gradient.square().sum(1).mean()).backward()
    of_d.step()


@pytest.mark.parametrize(("step", "flops"), [(careful, 0), (penalised, 9 * LAYER)])
def test_loss_and_penalty_are_told_from_what_the_networks_do(step, flops):
    """Of a penalty on two layers: its forward (2), the inner gradient (2), and in the backward of
    that gradient the weights (2), what passes between the layers (1), and the zeros that go into
    the first layer again (2)."""
    ledger = findings.profile(training(step)).ledger
    assert findings.loss_and_penalty(ledger).flops == flops


def test_every_waste_is_found_with_its_flops():
    assert found(wasteful) == {
        WEIGHTS: 2 * LAYER,
        REAL: 3 * LAYER,  # its first layer has no gradient to its input
        GENERATOR: 2 * LAYER,  # nor has the generator; what leads there, and its weights
    }


def test_nothing_is_found_where_nothing_is_thrown_away():
    assert found(careful) == {}


def test_the_parts_add_up_to_the_step():
    ledger = findings.profile(training(careful)).ledger
    forwards = 3 * 2 + 1
    to_weights = 2 * 2 + 1  # the generator's step computes none of the discriminator's
    to_inputs = 2 + 2  # real and fake: the second layer; in the generator's step both
    assert ledger.total().flops == (forwards + to_weights + to_inputs) * LAYER


def repeating(generator, critic, of_g, of_d, real, noise):
    """The discriminator does not move between the generator's step and its own."""
    of_g.zero_grad()
    fake = generator(noise)
    torch.autograd.backward(-critic(fake).mean(), inputs=list(generator.parameters()))
    of_g.step()
    of_d.zero_grad()
    (critic(fake.detach()).mean() - critic(real).mean()).backward()
    of_d.step()


def test_a_second_forward_of_the_same_samples_is_found():
    assert found(repeating) == {AGAIN: 2 * LAYER}


@pytest.mark.parametrize(
    "critic",
    [
        layers(nn.Dropout(0.5)),
        nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))),
    ],
    ids=["dropout", "spectral norm"],
)
def test_a_second_forward_that_differs_is_no_finding_but_a_note(critic):
    result = findings.profile(training(repeating, critic))
    assert AGAIN not in {finding.what for finding in result.findings}
    assert any("would not be exact" in note for note in result.notes)


def penalised(generator, critic, of_g, of_d, real, noise):
    of_d.zero_grad()
    points = real.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    gradient.square().sum(1).mean().backward()
    of_d.step()


def test_the_dead_second_order_branch_is_found_and_a_genuine_one_is_not():
    # Below the activation: zeros for the first layer's weights, and for its input.
    assert found(penalised).get(DEAD) == 2 * LAYER
    smooth = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
    assert DEAD not in found(penalised, smooth)


def test_watching_changes_no_gradient_and_leaves_no_hook():
    case = training(wasteful)
    (critic,) = case.discriminators
    case.step()
    before = [p.grad.clone() for p in critic.parameters()]
    original = torch.autograd.grad
    findings.profile(case)
    assert torch.autograd.grad is original
    assert not critic._forward_hooks
    assert not critic._forward_pre_hooks
    for p, expected in zip(critic.parameters(), before):
        torch.testing.assert_close(p.grad, expected)


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def users(monkeypatch):
    module = types.ModuleType("users_code")
    monkeypatch.setitem(sys.modules, "users_code", module)
    return module


def profile(*arguments: str) -> int:
    return command.main(["profile", *arguments])


def test_a_discriminator_is_profiled_with_loss_and_penalty(users, capsys):
    users.make = lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 4, 3),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 1, 3),
    )
    assert profile("--factory", "users_code:make", "--input", "2x3x8x8", "--penalty", "r1") == 0
    said = capsys.readouterr().out
    assert "gf.generator_backward(loss, generator)" in said
    assert "gf.cut_second_order(gradient)" in said


def test_a_whole_step_is_profiled(users, capsys):
    case = training(wasteful)
    users.make = lambda: {
        "step": case.step,
        "discriminator": case.discriminators,
        "generator": case.generators[0],
    }
    assert profile("--step", "users_code:make") == 0
    assert "discriminator(fake.detach())" in capsys.readouterr().out


class Blurred(nn.Module):
    """Its filter is a constant, as in StyleGAN."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 3)
        self.register_buffer("filter", torch.ones(4, 1, 2, 2) / 4)

    def forward(self, x):
        x = nn.functional.leaky_relu(self.first(x), 0.2)
        return self.last(nn.functional.conv2d(x, self.filter, groups=4))


def half_frozen():
    critic = Blurred()
    critic.first.requires_grad_(False)
    return critic


@pytest.mark.parametrize("make", [Blurred, half_frozen])
def test_a_profile_of_constant_filters_ends(users, capsys, make):
    users.make = make
    assert profile("--factory", "users_code:make", "--input", "2x3x8x8", "--penalty", "r1") == 0


def broken():
    raise FileNotFoundError("weights.pt")


@pytest.mark.parametrize(
    ("made", "arguments", "said"),
    [
        (broken, ["--factory", "users_code:make"], "raised FileNotFoundError: weights.pt"),
        (None, ["--factory", "users_code:other"], "users_code has no function other"),
        (None, ["--factory", "nowhere:make"], "importing nowhere failed: ModuleNotFoundError"),
        (None, ["--factory", "users_code"], "expected module:function"),
        (lambda: 3, ["--factory", "users_code:make"], "must be a torch.nn.Module"),
        (nn.Identity, ["--factory", "users_code:make", "--input", "2xa"], "expected a shape"),
        (
            lambda: torch.compile(nn.Linear(3, 1)),
            ["--factory", "users_code:make"],
            "is compiled, and its parts could not be told apart",
        ),
        (
            lambda: nn.Linear(5, 1),
            ["--factory", "users_code:make", "--input", "2x3"],
            "on an input of [2, 3], raised RuntimeError",
        ),
        (lambda: 3, ["--step", "users_code:make"], "must return a dict with step, discriminator"),
    ],
)
def test_what_cannot_be_profiled_is_said_in_one_line(users, capsys, made, arguments, said):
    users.make = made
    assert profile(*arguments) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1
