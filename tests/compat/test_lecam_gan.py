"""google/lecam-gan's losses, restated in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from toolkit_codebases import assert_same
from torch import Tensor, nn

from ganloss_fast.compat import lecam

BOTH = (torch.float32, torch.float64)


def sides(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(5, 1, dtype=dtype).requires_grad_() for _ in range(2)]


DISCRIMINATORS = {
    "dcgan": (lecam.loss_dcgan_dis, lambda f, r: (F.softplus(-r).mean(), F.softplus(f).mean())),
    "ls": (lecam.loss_ls_dis, lambda f, r: ((r + 1).pow(2).mean(), (f - 1).pow(2).mean())),
    "hinge": (lecam.loss_hinge_dis, lambda f, r: (F.relu(1 - r).mean(), F.relu(1 + f).mean())),
    "rahinge": (
        lecam.loss_rahinge_dis,
        lambda f, r: (
            (F.relu(1 - (r - f.mean())) / 2).mean(),
            (F.relu(1 + (f - r.mean())) / 2).mean(),
        ),
    ),
}
GENERATORS = {
    "dcgan": (lecam.loss_dcgan_gen, lambda f, r: F.softplus(-f).mean()),
    "ls": (lecam.loss_ls_gen, lambda f, r: f.pow(2).mean()),
    "hinge": (lecam.loss_hinge_gen, lambda f, r: -f.mean()),
    "rahinge": (
        lecam.loss_rahinge_gen,
        lambda f, r: (
            F.relu(1 + (r.mean().item() - f.mean())) / 2 + F.relu(1 - (f - r.mean().item())) / 2
        ).mean(),
    ),
}


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator_losses_are_pairs(name, dtype):
    ours, plain = DISCRIMINATORS[name]
    f, r = sides(dtype)
    for mine, right in zip(ours(f, r), plain(f, r)):
        assert_same(mine, right, [f, r])
    assert_same(sum(ours(f, r)), sum(plain(f, r)), [f, r])


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("name", GENERATORS)
def test_generator_losses(name, dtype):
    ours, plain = GENERATORS[name]
    f, r = sides(dtype)
    assert_same(ours(f, r), plain(f, r), [f, r])
    if name == "rahinge":
        mean = r.mean().item()
        assert_same(ours(f, mean), plain(f, r), [f, r])
    else:
        assert_same(ours(f), plain(f, r), [f])


class PlainAverages:
    def __init__(self, init=1000.0, decay=0.9, start_itr=0):
        self.D_real = self.D_fake = init
        self.decay, self.start_itr = decay, start_itr

    def update(self, value, mode, itr):
        decay = 0.0 if itr < self.start_itr else self.decay
        setattr(self, mode, getattr(self, mode) * decay + value * (1 - decay))


def test_fifty_steps_with_the_regulariser():
    def trained(averages, losses, regularizer) -> Tensor:
        torch.manual_seed(3)
        critic = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
        for it in range(50):
            real, fake = critic(torch.randn(16, 4) + 1), critic(torch.randn(16, 4))
            on_real, on_fake = losses(fake, real, averages, it)
            loss = on_real + on_fake + 0.3 * regularizer(real, fake, averages)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends = torch.tensor([float(averages.D_real), float(averages.D_fake)])
        return torch.cat([nn.utils.parameters_to_vector(critic.parameters()), ends])

    def plain_losses(fake, real, averages, it):
        averages.update(fake.mean().item(), "D_fake", it)
        averages.update(real.mean().item(), "D_real", it)
        return F.relu(1 - real).mean(), F.relu(1 + fake).mean()

    def plain_regularizer(real, fake, averages):
        above = F.relu(real - averages.D_fake).pow(2).mean()
        return above + F.relu(averages.D_real - fake).pow(2).mean()

    ours = trained(lecam.ema_losses(start_itr=5), lecam.discriminator_loss, lecam.lecam_reg)
    plain = trained(PlainAverages(start_itr=5), plain_losses, plain_regularizer)
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-5)


def test_averages_stay_tensors_without_a_graph():
    ema = lecam.ema_losses()
    f, r = sides()
    lecam.loss_hinge_dis(f, r, ema, 0)
    assert isinstance(ema.D_real, Tensor)
    assert not ema.D_real.requires_grad
    ema.update(2.0, "G_loss", 3)
    assert ema.G_loss == pytest.approx(0.9 * 1000 + 0.2)


def test_wrong_calls_are_named():
    f, r = sides()
    with pytest.raises(ValueError, match="mode"):
        lecam.ema_losses().update(1.0, "D_reel", 0)
    with pytest.raises(ValueError, match="it:"):
        lecam.loss_hinge_dis(f, r, lecam.ema_losses())
    with pytest.raises(TypeError, match="dis_real"):
        lecam.loss_dcgan_dis(f, None)
