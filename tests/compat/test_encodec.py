"""EnCodec's balancer: the published arithmetic, without its copies to the host."""

from __future__ import annotations

import inspect

import pytest
import torch
from drop_in_cases import assert_training_agrees
from torch import Tensor, nn

from ganloss_fast.compat import encodec

WEIGHTS = {"l1": 0.1, "adv": 4.0, "feat": 4.0}


class Plain:
    """The formula, loss by loss, with averages that are Python numbers."""

    def __init__(self, weights, rescale=True, total_norm=1.0, decay=0.999, per_item=True):
        self.weights, self.rescale, self.total_norm = weights, rescale, total_norm
        self.decay, self.per_item = decay, per_item
        self.sums, self.counts = {}, {}

    def backward(self, losses: dict[str, Tensor], output: Tensor) -> Tensor:
        gradient, effective = torch.zeros_like(output), 0.0
        whole = sum(self.weights[name] for name in losses)
        for name, loss in losses.items():
            (own,) = torch.autograd.grad(loss, output, retain_graph=True)
            norm = own.flatten(1).norm(dim=1).mean() if self.per_item else own.norm()
            self.sums[name] = self.sums.get(name, 0.0) * self.decay + norm.item()
            self.counts[name] = self.counts.get(name, 0.0) * self.decay + 1.0
            scale = self.weights[name]
            if self.rescale:
                average = self.sums[name] / self.counts[name]
                scale = scale / whole * self.total_norm / (1e-12 + average)
            gradient += scale * own
            effective += scale * loss.detach()
        output.backward(gradient)
        return effective

    def ratios(self) -> dict[str, float]:
        averages = {name: self.sums[name] / self.counts[name] for name in self.sums}
        return {f"ratio_{name}": a / sum(averages.values()) for name, a in averages.items()}


def losses_of(output: Tensor, step: int = 0) -> dict[str, Tensor]:
    return {
        "l1": output.abs().mean() * (1 + step),
        "adv": -output.tanh().mean(),
        "feat": (output - 1).square().mean(),
    }


OPTIONS = {
    "as it comes": ({}, {}),
    "a total norm": ({"total_norm": 2.5, "ema_decay": 0.5}, {"total_norm": 2.5, "decay": 0.5}),
    "whole gradients": ({"per_batch_item": False}, {"per_item": False}),
    "a weighted sum": ({"rescale_grads": False}, {"rescale": False}),
}


@pytest.mark.parametrize(("options", "plain_options"), OPTIONS.values(), ids=OPTIONS)
def test_gradients_and_metrics_are_those_of_the_formula(options, plain_options):
    torch.manual_seed(0)
    ours = encodec.Balancer(WEIGHTS, monitor=True, **options)
    plain = Plain(WEIGHTS, **plain_options)
    model, x = nn.Conv1d(1, 1, 3).double(), torch.randn(3, 1, 9, dtype=torch.float64)
    for step in range(4):
        gradients = []
        for balancer in (ours, plain):
            model.zero_grad()
            output = model(x)
            result = balancer.backward(losses_of(output, step), output)
            gradients.append([p.grad for p in model.parameters()])
            assert balancer is plain or result is None
        for a, b in zip(*gradients):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
        assert ours.metrics == pytest.approx(plain.ratios(), rel=1e-12)
        assert all(isinstance(value, float) for value in ours.metrics.values())


def test_the_signature_is_the_published_one():
    parameters = inspect.signature(encodec.Balancer.__init__).parameters
    assert {name: p.default for name, p in parameters.items()} == {
        "self": inspect.Parameter.empty,
        "weights": inspect.Parameter.empty,
        "rescale_grads": True,
        "total_norm": 1.0,
        "ema_decay": 0.999,
        "per_batch_item": True,
        "epsilon": 1e-12,
        "monitor": False,
    }


def test_there_are_no_metrics_unless_they_are_asked_for():
    output = nn.Linear(2, 2)(torch.ones(1, 2))
    balancer = encodec.Balancer(WEIGHTS)
    assert balancer.metrics == {}
    balancer.backward(losses_of(output), output)
    assert balancer.metrics == {}
    assert encodec.Balancer(WEIGHTS, monitor=True).metrics == {}


def test_an_output_may_be_a_leaf_as_in_the_published_test():
    """Two unit gradients that cancel, 1 and 100 times as long."""
    x = torch.zeros(1, requires_grad=True)
    for rescale, wanted in ((False, 99.0), (True, 0.0)):
        x.grad = None
        losses = {"1": (x - 1).abs().mean(), "2": 100 * (x + 1).abs().mean()}
        encodec.Balancer({"1": 1, "2": 1}, rescale_grads=rescale).backward(losses, x)
        assert x.grad.item() == pytest.approx(wanted)


def test_losses_may_change_their_order_and_join_later_but_not_leave():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 3).double(), torch.randn(4, 3).double()
    balancer, plain = encodec.Balancer(WEIGHTS, monitor=True), Plain(WEIGHTS)
    for step in range(3):
        gradients = []
        for each in (balancer, plain):
            model.zero_grad()
            output = model(x)
            losses = losses_of(output, step)
            if step == 0:
                del losses["adv"]
            each.backward(dict(reversed(losses.items())) if step == 1 else losses, output)
            gradients.append(model.weight.grad)
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)
    assert balancer.metrics == pytest.approx(plain.ratios())
    output = model(x)
    with pytest.raises(ValueError, match="feat, adv took part in the steps before"):
        balancer.backward({"l1": output.sum()}, output)


def test_a_loss_without_a_weight_is_named():
    output = nn.Linear(2, 2)(torch.ones(1, 2))
    with pytest.raises(ValueError, match="none for the loss 'mel'"):
        encodec.Balancer(WEIGHTS).backward({"mel": output.sum()}, output)


def test_fifty_steps_agree():
    def step_with(make):
        balancer = make(WEIGHTS)

        def step(generator, critic, of_generator, of_critic, noise, real):
            of_generator.zero_grad()
            fake = generator(noise)
            losses = {
                "l1": (fake - real).abs().mean(),
                "adv": -critic(fake).mean(),
                "feat": (fake - real).square().mean(),
            }
            balancer.backward(losses, fake)
            of_generator.step()

        return step

    torch.manual_seed(0)
    networks = nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 3)
    assert_training_agrees(
        step_with(encodec.Balancer),
        step_with(Plain),
        networks,
        lambda draws: tuple(torch.randn(2, 2, 1, 9, generator=draws).unbind()),
    )
