"""CTGAN's discriminator and its penalty, restated in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ganloss_fast.compat import ctgan


class Plain(nn.Module):
    def __init__(self, input_dim, discriminator_dim, pac=10):
        super().__init__()
        self.pac, self.pacdim = pac, input_dim * pac
        width, layers = self.pacdim, []
        for item in discriminator_dim:
            layers += [nn.Linear(width, item), nn.LeakyReLU(0.2), nn.Dropout(0.5)]
            width = item
        self.seq = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x):
        return self.seq(x.view(-1, self.pacdim))

    def calc_gradient_penalty(self, real, fake, device="cpu", pac=10, lambda_=10):
        alpha = torch.rand(real.size(0) // pac, 1, 1, device=device)
        alpha = alpha.repeat(1, pac, real.size(1)).view(-1, real.size(1))
        x = alpha * real + (1 - alpha) * fake
        if not x.requires_grad:
            x.requires_grad_()
        (g,) = torch.autograd.grad(self(x).sum(), x, create_graph=True)
        norms = g.view(-1, pac * real.size(1)).norm(2, dim=1)
        return ((norms - 1) ** 2).mean() * lambda_


def pair(dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    plain = Plain(6, (16, 8), pac=5).to(dtype)
    ours = ctgan.Discriminator(6, (16, 8), pac=5).to(dtype)
    ours.load_state_dict(plain.state_dict())
    return ours, plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_penalty_and_gradients(dtype):
    ours, plain = pair(dtype)
    real, fake = torch.randn(2, 20, 6, dtype=dtype)
    found = []
    for critic in (ours, plain):
        torch.manual_seed(2)  # alpha, and dropout
        value = critic.calc_gradient_penalty(real, fake, "cpu", 5, 3.0)
        weights = [p for p in critic.parameters() if p.dim() == 2]
        found.append([critic.eval()(real), value, *torch.autograd.grad(value, weights)])
    for mine, right in zip(*found):
        torch.testing.assert_close(mine, right)


def test_fifty_steps_are_ctgans_without_the_generators_backward():
    class Watched(torch.autograd.Function):
        runs = 0

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            Watched.runs += 1
            return g

    def trained(critic, losses) -> tuple[Tensor, int]:
        Watched.runs = 0
        torch.manual_seed(1)
        generator = nn.Linear(3, 6)
        optimizers = [
            torch.optim.Adam(m.parameters(), 1e-2, betas=(0.5, 0.9)) for m in (generator, critic)
        ]
        for step in range(50):
            torch.manual_seed(step)
            real, fake = torch.randn(20, 6), Watched.apply(generator(torch.randn(20, 3)))
            loss, penalty = losses(critic, real, fake)
            optimizers[1].zero_grad(set_to_none=False)
            penalty.backward(retain_graph=True)
            loss.backward()
            optimizers[1].step()
        runs = Watched.runs
        return nn.utils.parameters_to_vector(critic.parameters()), runs

    def plain_losses(critic, real, fake):
        y_fake, y_real = critic(fake), critic(real)
        penalty = critic.calc_gradient_penalty(real, fake, "cpu", 5)
        return -(y_real.mean() - y_fake.mean()), penalty

    ours, plain = pair()
    mine, our_runs = trained(ours, ctgan.discriminator_losses)
    theirs, their_runs = trained(plain, plain_losses)
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    assert (our_runs, their_runs) == (0, 100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, x: d(x[:7]), "multiple of pac=5"),
        (lambda d, x: d.calc_gradient_penalty(x, x), "pac: expected 5"),
        (lambda d, x: d.calc_gradient_penalty(x[:7], x[:7], pac=5), "multiple of pac=5"),
        (lambda d, x: ctgan.Discriminator(6, (8,), pac=0), "pac"),
    ],
)
def test_what_is_no_pack_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(pair()[0], torch.randn(20, 6))
