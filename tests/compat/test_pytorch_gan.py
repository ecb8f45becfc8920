"""The loss lines of PyTorch-GAN's scripts, restated in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from toolkit_codebases import assert_same
from torch import Tensor, nn

from ganloss_fast.compat import pytorch_gan

BOTH = (torch.float32, torch.float64)


def critic_of(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9, 1)).to(dtype)


def gradient(critic: nn.Module, x: Tensor) -> Tensor:
    (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return g


@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_penalties(dtype):
    critic = critic_of(dtype)
    weights = [p for p in critic.parameters() if p.dim() > 1]
    real, fake = torch.randn(2, 5, 2, 5, 5, dtype=dtype)
    alpha = torch.rand(5, 1, 1, 1, dtype=dtype)
    x = (alpha * real + (1 - alpha) * fake).requires_grad_()
    plain = (gradient(critic, x).reshape(5, -1).norm(2, dim=1) - 1).square().mean()
    ours = pytorch_gan.compute_gradient_penalty(critic, real, fake, alpha)
    assert_same(ours, plain, weights)

    alpha = torch.rand(real.shape, dtype=dtype)
    torch.manual_seed(1)
    noise = torch.rand(real.shape, dtype=dtype)
    x = (alpha * real + (1 - alpha) * (real + 0.5 * real.std() * noise)).requires_grad_()
    plain = 7 * (gradient(critic, x).norm(2, dim=1) - 1).square().mean()
    torch.manual_seed(1)
    ours = pytorch_gan.compute_dragan_penalty(critic, real, 7, alpha)
    assert_same(ours, plain, weights)

    reals, fakes = real.clone().requires_grad_(), fake.clone().requires_grad_()
    sums = [gradient(critic, t).reshape(5, -1).pow(2).sum(1) for t in (reals, fakes)]
    plain = (sums[0] ** 3 + sums[1] ** 3).mean() * 2 / 2
    ours = pytorch_gan.compute_div_gp(reals, critic(reals), fakes, critic(fakes))
    assert_same(ours, plain, weights)


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("shape", [(6, 1), (4, 1, 3, 3)])
@pytest.mark.parametrize("average", [False, True])
def test_relativistic_losses(average, shape, dtype):
    r, f = (torch.randn(shape, dtype=dtype).requires_grad_() for _ in range(2))

    def bce(x: Tensor, label: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(x, torch.full_like(x, label))

    r_mean = r.mean(0, keepdim=True) if average else r
    f_mean = f.mean(0, keepdim=True) if average else f
    plain = (bce(r - f_mean, 1.0) + bce(f - r_mean, 0.0)) / 2
    assert_same(pytorch_gan.relativistic_d_loss(r, f, average), plain, [r, f])
    plain = bce(f - r_mean.detach(), 1.0)
    assert_same(pytorch_gan.relativistic_g_loss(r, f, average), plain, [r, f])


@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_softmax_and_pulling_away(dtype):
    r, f = (torch.randn(6, 1, dtype=dtype).requires_grad_() for _ in range(2))
    partition = torch.exp(-r).sum() + torch.exp(-f).sum()
    assert_same(pytorch_gan.softmax_d_loss(r, f), r.sum() / 6 + partition.log(), [r, f])
    plain = (r.sum() + f.sum()) / 12 + partition.log()
    assert_same(pytorch_gan.softmax_g_loss(r, f), plain, [r, f])
    assert pytorch_gan.softmax_d_loss(r - 200, f - 200).isfinite()
    e = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    rows = e / e.square().sum(1, keepdim=True).sqrt()
    plain = ((rows @ rows.T).sum() - 4) / 12
    assert_same(pytorch_gan.pullaway_loss(e), plain, [e])


def test_fifty_steps_of_wgan_gp():
    def trained(penalty) -> Tensor:
        critic = critic_of(torch.float32)
        optimizer = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.5, 0.999))
        for step in range(50):
            torch.manual_seed(step)
            real, fake, alpha = *torch.randn(2, 4, 2, 5, 5), torch.rand(4, 1, 1, 1)
            optimizer.zero_grad()
            loss = -critic(real).mean() + critic(fake).mean()
            (loss + 10 * penalty(critic, real, fake, alpha)).backward()
            optimizer.step()
        return nn.utils.parameters_to_vector(critic.parameters())

    def plain(critic, real, fake, alpha):
        x = (alpha * real + (1 - alpha) * fake).requires_grad_()
        return (gradient(critic, x).reshape(4, -1).norm(2, dim=1) - 1).square().mean()

    ours = trained(pytorch_gan.compute_gradient_penalty)
    torch.testing.assert_close(ours, trained(plain), rtol=1e-3, atol=1e-5)


def test_wrong_calls_are_named():
    x = torch.zeros(3, 1)
    with pytest.raises(ValueError, match="fake_pred"):
        pytorch_gan.relativistic_d_loss(x, x[:2])
    with pytest.raises(ValueError, match="require grad"):
        pytorch_gan.compute_div_gp(x, x, x, x)
