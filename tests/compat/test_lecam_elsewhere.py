"""LeCam as 1d-tokenizer, SEED-Voken and StudioGAN write it, restated in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.compat import seed_voken, studiogan, titok


def plain(r: Tensor, f: Tensor, real_average: float, fake_average: float) -> Tensor:
    above = F.relu(r - fake_average).pow(2).mean()
    return above + F.relu(real_average - f).pow(2).mean()


class Plain:
    """Moving averages on Python numbers; before start they are the last values."""

    def __init__(self, init, decay, start=0):
        self.real = self.fake = init
        self.decay, self.start = decay, start

    def update(self, r, f, it):
        decay = 0.0 if it < self.start else self.decay
        self.real = self.real * decay + r.mean().item() * (1 - decay)
        self.fake = self.fake * decay + f.mean().item() * (1 - decay)


def step_of_titok(state, r, f, it):
    """On means, with the averages of the batches before."""
    averages = state.setdefault("averages", torch.zeros(2))
    means = r.mean(), f.mean()
    loss = titok.compute_lecam_loss(*means, *averages.clone().unbind())
    averages.mul_(0.9).add_(torch.stack(means).detach(), alpha=0.1)
    return loss


def step_of_seed_voken(state, r, f, it):
    ema = state.setdefault("ema", seed_voken.LeCAM_EMA(decay=0.9))
    ema.update(r, f)
    return seed_voken.lecam_reg(r, f, ema)


def step_of_studiogan(state, r, f, it):
    ema = state.setdefault("ema", studiogan.LeCamEMA(start_iter=3))
    ema.update(r.mean(), "D_real", it)
    ema.update(f.mean(), "D_fake", it)
    return studiogan.lecam_reg(r, f, ema)


def plain_step(form, init, start):
    def step(state, r, f, it):
        ema = state.setdefault("ema", Plain(init, 0.9, start))
        if form == "means":
            loss = plain(r.mean(), f.mean(), ema.real, ema.fake)
            ema.update(r, f, it)
            return loss
        ema.update(r, f, it)
        return plain(r, f, ema.real, ema.fake)

    return step


CODEBASES = {
    "1d-tokenizer": (step_of_titok, plain_step("means", 0.0, 0)),
    "SEED-Voken": (step_of_seed_voken, plain_step("logits", 0.0, 0)),
    "StudioGAN": (step_of_studiogan, plain_step("logits", 7777.0, 3)),
}


@pytest.mark.parametrize("name", CODEBASES)
def test_fifty_steps_are_those_of_the_plain_form(name):
    def trained(step) -> Tensor:
        torch.manual_seed(3)
        critic = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
        state, values = {}, []
        for it in range(50):
            r, f = critic(torch.randn(16, 4) + 1), critic(torch.randn(16, 4))
            value = step(state, r, f, it)
            optimizer.zero_grad()
            (F.relu(1 - r).mean() + F.relu(1 + f).mean() + 0.3 * value).backward()
            optimizer.step()
            values.append(value.detach())
        return torch.cat([nn.utils.parameters_to_vector(critic.parameters()), torch.stack(values)])

    ours, right = CODEBASES[name]
    torch.testing.assert_close(trained(ours), trained(right), rtol=1e-3, atol=1e-5)


def test_averages_stay_on_the_device_without_a_graph():
    r, f = torch.randn(2, 5, 1, requires_grad=True)
    ema = seed_voken.LeCAM_EMA()
    ema.update(r, f)
    assert isinstance(ema.logits_real_ema, Tensor)
    assert not ema.logits_real_ema.requires_grad
