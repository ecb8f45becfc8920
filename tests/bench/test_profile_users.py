"""The profile of steps as users write them: nothing is claimed that they need."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from profiled_players import (
    AGAIN,
    GENERATOR_AGAIN,
    GRAPH,
    LAYER,
    SECOND_WAY,
    WEIGHTS,
    WIDTH,
    B,
    Players,
    critic_of,
    plainly,
)

# ---- samples on their way from the generator to the discriminator ------------------------------


@pytest.mark.parametrize(
    "process",
    [
        torch.tanh,
        lambda fake: torch.cat([fake[:, :16], fake[:, 16:]], 1),  # pix2pix: with its input
        lambda fake: fake.clone().add_(1),
        lambda fake: F.dropout(fake, 0.5),
    ],
    ids=["tanh", "cat", "in place", "dropout"],
)
def test_a_generator_behind_other_operators_is_still_trained(process):
    def step(p):
        fake = process(p.g(p.noise))
        p.learn_d(p.d(fake.detach()).mean() - p.d(p.real).mean())
        p.learn_g(-p.d(fake).mean())

    assert Players().found(step) == {WEIGHTS: 2}


def test_pix2pix_freezes_its_discriminator_and_throws_nothing_away():
    def step(p):
        fake = torch.tanh(p.g(p.noise))
        p.d.requires_grad_(True)
        p.learn_d(p.d(fake.detach()).mean() - p.d(p.real).mean())
        p.d.requires_grad_(False)
        p.learn_g(-p.d(fake).mean())

    assert Players().found(step) == {}


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = critic_of()

    def forward(self, *, input):
        return self.inner(input)


def test_samples_may_come_by_keyword():
    def step(p):
        fake = p.g(p.noise)
        p.learn_d(p.d(input=fake.detach()).mean() - p.d(input=p.real).mean())
        p.learn_g(-p.d(input=fake).mean())

    def generator_first(p):
        fake = p.g(p.noise)
        p.learn_g(-p.d(input=fake).mean())
        p.learn_d(p.d(input=fake.detach()).mean() - p.d(input=p.real).mean())

    assert Players(ByKeyword()).found(step) == {WEIGHTS: 2}
    assert Players(ByKeyword()).found(generator_first) == {WEIGHTS: 2, AGAIN: 2}


def test_layers_that_are_called_one_by_one_are_the_discriminators():
    def step(p):
        def d(x):
            for layer in p.d:
                x = layer(x)
            return x

        fake = p.g(p.noise)
        p.learn_d(d(fake.detach()).mean() - d(p.real).mean())
        p.learn_g(-d(fake).mean())

    assert Players().found(step) == {WEIGHTS: 2}


# ---- gradients that are used otherwise ---------------------------------------------------------


def test_gradients_that_are_added_up_are_used():
    def step(p):
        p.of_d.zero_grad()
        for k in range(2):
            with torch.no_grad():
                fake = p.g(p.noise + k)
            (p.d(fake).mean() - p.d(p.real - k).mean()).backward()
        p.of_d.step()

    assert Players().found(step) == {}


def test_gradients_for_an_optimizer_that_steps_in_another_call_are_used():
    def step(p):
        fake = p.g(p.noise)
        (p.d(fake.detach()).mean() - p.d(p.real).mean()).backward()

    assert WEIGHTS not in Players().found(step)
    assert set(Players().found(step)) <= {GRAPH}


def test_weights_may_be_moved_by_hand():
    def step(p):
        (p.d(p.g(p.noise).detach()).mean() - p.d(p.real).mean()).backward()
        with torch.no_grad():
            for parameter in p.d.parameters():
                parameter -= 0.0 * parameter.grad
                parameter.grad = None

    assert set(Players().found(step)) <= {GRAPH}


class Unseen(torch.optim.Optimizer):
    """By kernels that no dispatch mode sees."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, {})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.detach().numpy()[...] -= 0.0 * p.grad.numpy()


def test_an_optimizer_of_kernels_that_nobody_sees_uses_its_gradients():
    players = Players()
    players.of_d = Unseen(list(players.d.parameters()))
    players.of_g = Unseen(list(players.g.parameters()))

    assert players.found(plainly) == {WEIGHTS: 2}


class Hidden(torch.autograd.Function):
    """x -> 2 x, by a kernel that no dispatch mode sees."""

    @staticmethod
    def forward(ctx, x):
        y = torch.empty_like(x)
        y.numpy()[...] = 2 * x.numpy()
        return y

    @staticmethod
    def backward(ctx, gradient):
        return Hidden.forward(ctx, gradient.contiguous())


class WithHidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.last(Hidden.apply(self.first(x)))


def test_what_a_kernel_reads_that_nobody_sees_is_not_thrown_away():
    assert Players(WithHidden()).found(plainly) == {WEIGHTS: 2}


def test_a_buffer_in_numpy_hides_no_use_of_the_generator():
    def step(p):
        fake = p.g(p.noise)
        p.learn_g(-p.d(fake).mean())
        old = torch.from_numpy(np.flip(fake.detach().numpy(), 0).copy())
        p.learn_d(p.d(old).mean() - p.d(p.real).mean())

    assert Players().found(step) == {WEIGHTS: 2}


def test_samples_that_leave_torch_were_not_made_in_vain():
    def step(p):
        with torch.no_grad():
            fake = torch.from_numpy(p.g(p.noise).numpy().copy())
        p.learn_d(p.d(fake).mean() - p.d(p.real).mean())

    assert Players().found(step) == {}


def test_both_backwards_may_come_before_both_optimizers():
    def step(p):
        p.of_g.zero_grad()
        p.of_d.zero_grad()
        fake = p.g(p.noise)
        (-p.d(fake).mean()).backward(inputs=list(p.g.parameters()))
        (p.d(fake.detach()).mean() - p.d(p.real).mean()).backward()
        p.of_g.step()
        p.of_d.step()

    assert Players().found(step) == {AGAIN: 2}


# ---- other networks, and memory ----------------------------------------------------------------


def with_perceptual(network, logs=False):
    kept = []

    def step(p):
        fake = p.g(p.noise)
        p.learn_g((network(fake) - network(p.real)).abs().mean() - p.d(fake).mean())
        distance = (network(fake.detach()) - network(p.real)).abs().mean()
        if logs:
            kept.append(distance.item())
        p.learn_d(p.d(p.real).mean() - p.d(fake.detach() + 1).mean())

    return step


@pytest.mark.parametrize(("named", "called"), [(True, "perceptual network"), (False, "Linear")])
def test_another_network_that_no_optimizer_uses_is_found(named, called):
    network = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    found = Players().found(with_perceptual(network), [network] if named else [])
    unused = f"forwards of the {called} in the discriminator's step, of which no optimizer uses the"
    assert found == {f"{unused} result": 2, WEIGHTS: 2}


def test_what_is_logged_is_used():
    network = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    found = Players().found(with_perceptual(network, logs=True))
    again = "forwards of the Linear that ran before, on the same samples and weights"
    assert found == {again: 2, WEIGHTS: 2}


def test_a_graph_of_the_generator_that_no_backward_uses_is_memory():
    def step(p):
        p.learn_d(p.d(p.g(p.noise * 2).detach()).mean() - p.d(p.real).mean())
        p.learn_g(-p.d(p.g(p.noise + 1)).mean())

    profile = Players().profile(step)
    kept = {each.what: each.keeps for each in profile.findings}
    assert kept == {WEIGHTS: 0, GRAPH: 4 * B * WIDTH}  # its input


def test_a_graph_that_serves_two_forwards_is_not_in_vain():
    def step(p):
        p.learn_d(p.d(p.g(p.noise).detach()).mean() - p.d(p.real).mean())
        p.learn_g(-p.d(p.g(p.noise)).mean())

    assert Players().found(step) == {WEIGHTS: 2, GENERATOR_AGAIN: 1}


def test_the_graph_of_a_discriminator_that_is_logged_is_not_the_generators():
    def step(p):
        plainly(p)
        p.d(p.noise).mean().item()

    assert Players().found(step) == {WEIGHTS: 2}


def test_graphs_of_a_loop_are_held_one_after_the_other():
    def step(p):
        for k in range(3):
            p.learn_d(p.d(p.g(p.noise + k).detach()).mean() - p.d(p.real).mean())
        p.learn_g(-p.d(p.g(p.noise)).mean())

    (graph,) = (each for each in Players().profile(step).findings if each.what == GRAPH)
    assert graph.keeps == 4 * B * WIDTH


def test_the_sum_counts_nothing_twice():
    """The second way back through the discriminator, after that for an adaptive weight, has four
    parts of a layer each; the two weight gradients of it are a waste by themselves, too."""

    def step(p):
        p.learn_d(p.d(p.real).mean())
        adversarial = -p.d(p.g(p.noise)).mean()
        (g,) = torch.autograd.grad(adversarial, p.g.weight, retain_graph=True)
        p.learn_g(adversarial * g.norm().detach())

    profile = Players().profile(step)
    costs = {each.what: each.cost.flops / LAYER for each in profile.findings}
    assert costs == {SECOND_WAY: 4, WEIGHTS: 2}
    assert profile.together.flops == 4 * LAYER
