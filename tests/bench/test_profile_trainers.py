"""The profile of what trainers use: optimizers, loss scaling, checkpoints, wrappers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from profiled_players import IN_ONE_STEP, SAMPLES, WEIGHTS, Players, critic_of, plainly
from torch.utils.checkpoint import checkpoint

# ---- weights that move --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.Adam(parameters, fused=True),  # counts no version
        lambda parameters: torch.optim.Adam(parameters, foreach=True),
        lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=1),
    ],
    ids=["fused", "foreach", "LBFGS"],
)
def test_weights_that_an_optimizer_moved_are_others(optimizer):
    players = Players()
    players.of_d = optimizer(players.d.parameters())

    def step(p):
        fake = p.g(p.noise)

        def closure():
            p.of_d.zero_grad()
            loss = p.d(fake.detach()).mean() - p.d(p.real).mean()
            loss.backward()
            return loss

        p.of_d.step(closure)
        p.learn_g(-p.d(fake).mean())

    assert players.found(step) == {WEIGHTS: 2}


def by_data(p):
    """As a clipped critic's."""
    for parameter in p.d.parameters():
        parameter.data.clamp_(-1e3, 1e3)


def a_buffer(p):
    p.d.strength.add_(1)


def the_samples(p):
    p.real.data.add_(0)


@pytest.mark.parametrize("move", [by_data, a_buffer, the_samples])
def test_what_is_moved_between_two_forwards_is_another(move):
    def step(moves):
        def run(p):
            before = p.d(p.real).mean()
            if moves:
                with torch.no_grad():
                    move(p)
            p.learn_d(p.d(p.real).mean() * before.detach())

        return run

    critic = critic_of()
    critic.register_buffer("strength", torch.zeros(()))
    assert IN_ONE_STEP in Players(critic).found(step(False))
    assert Players(critic).found(step(True)) == {}


def test_samples_of_the_inference_mode_are_watched_too():
    def step(p):
        with torch.inference_mode():
            fake = p.g(p.noise)
        p.learn_d(p.d(fake.clone()).mean() - p.d(p.real).mean())
        p.learn_g(-p.d(p.g(p.noise + 1)).mean())

    assert Players().found(step) == {WEIGHTS: 2}


def test_loss_scaling_and_mixed_precision_change_no_finding():
    of_d, of_g = torch.amp.GradScaler("cpu"), torch.amp.GradScaler("cpu")

    def learn(scaler, optimizer, loss):
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    def step(p):
        with torch.autocast("cpu", torch.bfloat16):
            fake = p.g(p.noise)
            loss = p.d(fake.detach()).mean() - p.d(p.real).mean()
        learn(of_d, p.of_d, loss)
        with torch.autocast("cpu", torch.bfloat16):
            loss = -p.d(fake).mean()
        learn(of_g, p.of_g, loss)

    assert Players().found(step) == {WEIGHTS: 2}


def test_a_step_that_a_scaler_skips_says_for_what_it_holds():
    scaler = torch.amp.GradScaler("cpu")

    def step(p):
        fake = p.g(p.noise)
        p.of_d.zero_grad()
        scaler.scale(p.d(fake.detach()).mean() * float("inf")).backward()
        scaler.step(p.of_d)
        scaler.update()
        p.learn_g(-p.d(fake).mean())

    notes = Players().profile(step).notes
    assert any("No optimizer of the discriminator stepped (a GradScaler" in each for each in notes)


def test_several_optimizers_of_one_side_use_its_gradients():
    players = Players()
    first, last = (torch.optim.SGD(players.d[k].parameters(), lr=0.0) for k in (0, 2))

    def step(p):
        fake = p.g(p.noise)
        first.zero_grad()
        last.zero_grad()
        (p.d(fake.detach()).mean() - p.d(p.real).mean()).backward()
        first.step()
        last.step()
        p.learn_g(-p.d(fake).mean())

    assert players.found(step) == {WEIGHTS: 2}


# ---- forwards that run in a backward -------------------------------------------------------------


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant, self.forwards = critic_of(), reentrant, 0

    def counted(self, x):
        self.forwards += 1
        return self.inner(x)

    def forward(self, x):
        x = x.detach().requires_grad_() if self.reentrant and not x.requires_grad else x
        return checkpoint(self.counted, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize(
    ("reentrant", "wasted"),
    [(False, {WEIGHTS: 2}), (True, {WEIGHTS: 2, SAMPLES: 2})],  # which the reentrant one asks for
)
def test_a_checkpoints_second_forward_is_no_waste(reentrant, wasted):
    players = Players(Checkpointed(reentrant))
    assert players.found(plainly) == wasted


@pytest.mark.parametrize(
    ("reentrant", "wasted"),
    [(False, {WEIGHTS: 2}), (True, {WEIGHTS: 2, SAMPLES: 2})],
)
def test_nor_is_that_of_a_checkpoint_around_it(reentrant, wasted):
    def step(p):
        def d(x):
            x = x.detach().requires_grad_() if reentrant and not x.requires_grad else x
            return checkpoint(p.d, x, use_reentrant=reentrant)

        fake = p.g(p.noise)
        p.learn_d(d(fake.detach()).mean() - d(p.real).mean())
        p.learn_g(-d(fake).mean())

    assert Players().found(step) == wasted


def test_watching_runs_no_checkpoint():
    players = Players(Checkpointed(False))
    plainly(players)
    alone, players.d.forwards = players.d.forwards, 0
    players.profile(plainly)
    assert players.d.forwards == 2 * alone  # the step that warms up, and the one that is watched


class Wrapper(nn.Module):
    def __init__(self, **parts) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.module(x)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda d: Wrapper(module=d)])
@pytest.mark.parametrize("named", ["wrapper", "wrapped"])
def test_a_wrapper_is_what_it_wraps(wrap, named):
    players = Players()
    inner, players.d = players.d, wrap(players.d)
    sides = [players.d if named == "wrapper" else inner], [players.g]
    assert players.found(plainly, sides=sides) == {WEIGHTS: 2}


def test_of_one_module_that_holds_both_sides_each_has_its_own():
    players = Players()
    whole = Wrapper(critic=players.d, generator=players.g)
    assert players.found(plainly, sides=([whole], [players.g])) == {WEIGHTS: 2}
    assert players.found(plainly, sides=([players.d], [whole])) == {WEIGHTS: 2}
