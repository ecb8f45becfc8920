"""The discriminators of adversarial motion priors, restated in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.compat import amp

BOTH = (torch.float32, torch.float64)


def bce(x: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, torch.full_like(x, label))


def critic_of(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)
    ).to(dtype)


def skrl_loss(critic, agent, replay, demo) -> Tensor:
    """As skrl's trainer adds it up."""
    demo = demo.clone().requires_grad_()
    agent_logits = torch.cat([critic(agent), critic(replay)])
    demo_logits = critic(demo)
    loss = 0.5 * (bce(agent_logits, 0.0) + bce(demo_logits, 1.0))
    loss = loss + 0.05 * critic[-1].weight.flatten().square().sum()
    (g,) = torch.autograd.grad(demo_logits, demo, torch.ones_like(demo_logits), create_graph=True)
    loss = loss + 5 * g.square().sum(-1).mean()
    weights = [m.weight.flatten() for m in critic.modules() if isinstance(m, nn.Linear)]
    loss = loss + 1e-4 * torch.cat(weights).square().sum()
    return 5.0 * loss


def our_loss(critic, agent, replay, demo) -> Tensor:
    demo = demo.clone().requires_grad_()
    logits = [critic(agent), critic(replay)]
    return amp.motion_prior_loss(critic, logits, critic(demo), demo).total


@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_the_loss_of_skrl_and_mimickit(dtype):
    critic = critic_of(dtype)
    states = torch.randn(4, 6, dtype=dtype), torch.randn(9, 6, dtype=dtype)
    demo = torch.randn(5, 6, dtype=dtype)
    found = []
    for loss in (our_loss, skrl_loss):
        value = loss(critic, *states, demo)
        found.append([value, *torch.autograd.grad(value, list(critic.parameters()))])
    for mine, right in zip(*found):
        torch.testing.assert_close(mine, right)


def test_the_parts_are_there_for_the_log():
    critic, demo = critic_of(), torch.randn(5, 6, requires_grad=True)
    agent = critic(torch.randn(4, 6))
    loss = amp.motion_prior_loss(critic, agent, critic(demo), demo, loss_scale=1.0)
    torch.testing.assert_close(loss.prediction, (bce(agent, 0.0) + bce(critic(demo), 1.0)) / 2)
    total = loss.prediction + loss.regularization + 5 * loss.gradient_penalty
    torch.testing.assert_close(loss.total, total)
    assert not loss.prediction.requires_grad


class Discriminator(nn.Module):
    """amp-rsl-rl's."""

    def __init__(self, loss_type="BCEWithLogits", use_minibatch_std=True, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())
        self.linear = nn.Linear(8 + use_minibatch_std, 1)
        self.loss_type, self.use_minibatch_std, self.eta_wgan = loss_type, use_minibatch_std, 0.3
        self.to(dtype)

    def deviation(self, h):
        return h.float().std(dim=0, unbiased=False).mean().expand(len(h), 1).to(h.dtype)

    def forward(self, x):
        h = self.trunk(x)
        return self.linear(torch.cat([h, self.deviation(h)], -1) if self.use_minibatch_std else h)

    def scores(self, x):
        h = self.trunk(x)
        if self.use_minibatch_std:
            with torch.no_grad():
                s = self.deviation(h)
            h = torch.cat([h, s], -1)
        return self.linear(h)

    def compute_grad_pen(self, expert_states, policy_states, lambda_=10):
        data = torch.cat(expert_states, -1)
        if self.loss_type == "Wasserstein":
            alpha = torch.rand(data.size(0), 1)
            data = alpha * data + (1 - alpha) * torch.cat(policy_states, -1)
        data = data.detach().requires_grad_()
        (g,) = torch.autograd.grad(self.scores(data).sum(), data, create_graph=True)
        if self.loss_type == "Wasserstein":
            return lambda_ * (g.norm(2, dim=1) - 1).pow(2).mean()
        return 0.5 * lambda_ * g.pow(2).sum(1).mean()

    def compute_loss(self, policy_d, expert_d, expert, policy, lambda_=10):
        penalty = self.compute_grad_pen(expert, policy, lambda_)
        if self.loss_type == "Wasserstein":
            p, e = torch.tanh(self.eta_wgan * policy_d), torch.tanh(self.eta_wgan * expert_d)
            return p.mean() - e.mean(), penalty
        return 0.5 * (bce(expert_d, 1.0) + bce(policy_d, 0.0)), penalty


class Ours(Discriminator):
    compute_loss, compute_grad_pen = amp.compute_loss, amp.compute_grad_pen
    policy_loss, expert_loss, wgan_loss = amp.policy_loss, amp.expert_loss, amp.wgan_loss


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("deviation", [True, False])
@pytest.mark.parametrize("loss_type", ["BCEWithLogits", "Wasserstein"])
def test_the_methods_of_amp_rsl_rl(loss_type, deviation, dtype):
    expert, policy = torch.randn(2, 2, 5, 3, dtype=dtype).unbind()
    found = []
    for cls in (Ours, Discriminator):
        model = cls(loss_type, deviation, dtype)
        torch.manual_seed(2)
        logits = [model(torch.cat([*states], -1)) for states in (policy, expert)]
        loss, penalty = model.compute_loss(*logits, tuple(expert), tuple(policy))
        weights = [p for p in model.parameters() if p.dim() == 2]
        found.append([loss, penalty, *torch.autograd.grad(loss + penalty, weights)])
    for mine, right in zip(*found):
        torch.testing.assert_close(mine, right)
    model = Ours(loss_type, deviation, dtype)
    torch.testing.assert_close(model.policy_loss(logits[0]), bce(logits[0], 0.0))
    torch.testing.assert_close(model.expert_loss(logits[0]), bce(logits[0], 1.0))


@pytest.mark.parametrize("name", ["skrl", "amp-rsl-rl"])
def test_fifty_steps_are_those_of_the_plain_form(name):
    def trained(critic, loss_of) -> Tensor:
        optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
        for step in range(50):
            torch.manual_seed(step)
            optimizer.zero_grad()
            loss_of(critic, *torch.randn(3, 8, 6)).backward()
            optimizer.step()
        return nn.utils.parameters_to_vector(critic.parameters())

    def method(critic, policy, _, expert):
        states = [tuple(x.chunk(2, -1)) for x in (expert, policy)]
        return sum(critic.compute_loss(critic(policy), critic(expert), *states))

    if name == "skrl":
        ours, plain = trained(critic_of(), our_loss), trained(critic_of(), skrl_loss)
    else:
        ours, plain = trained(Ours(), method), trained(Discriminator(), method)
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-5)


def test_wrong_calls_are_named():
    critic, demo = critic_of(), torch.randn(5, 6)
    with pytest.raises(ValueError, match="require grad"):
        amp.motion_prior_loss(critic, critic(demo), critic(demo), demo)
    with pytest.raises(TypeError, match="logit_layer"):
        amp.motion_prior_loss(critic[:2], critic(demo), critic(demo), demo)
    with pytest.raises(ValueError, match="loss_type"):
        Ours("MSE").compute_grad_pen((demo[:, :3],) * 2, (demo[:, 3:],) * 2)
    with pytest.raises(ValueError, match="agent_logits"):
        amp.prediction_loss([], demo)
