"""BEGAN's discriminator loss and the balance that it keeps on the device."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ganloss_fast as gf


class Plain:
    """As torchgan and PyTorch-GAN keep it, on Python numbers."""

    def __init__(self, k=0.0, rate=0.001, gamma=0.75):
        self.k, self.rate, self.gamma = k, rate, gamma

    def __call__(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = real.mean() - self.k * fake.mean()
        difference = self.gamma * real.mean().item() - fake.mean().item()
        self.convergence = real.mean().item() + abs(difference)
        self.k = min(max(self.k + self.rate * difference, 0.0), 1.0)
        return loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_loss_balance_and_gradients_over_steps(dtype):
    ours, plain = gf.BoundaryEquilibrium(start_value=0.3, learning_rate=0.5), Plain(0.3, 0.5)
    for _ in range(6):
        real, fake = (torch.rand(4, 3, dtype=dtype).requires_grad_() for _ in range(2))
        step, loss = ours(real, fake), plain(real, fake)
        torch.testing.assert_close(step.loss, loss)
        torch.testing.assert_close(step.convergence.item(), plain.convergence)
        mine = torch.autograd.grad(step.loss, (real, fake))
        for a, b in zip(mine, torch.autograd.grad(loss, (real, fake))):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(ours.k.item(), plain.k)


def test_the_balance_stays_in_its_bounds_and_still_in_eval_mode():
    balance = gf.BoundaryEquilibrium(learning_rate=100.0)
    balance(torch.ones(2), torch.zeros(2))
    assert balance.k == 1.0
    balance(torch.zeros(2), torch.ones(2))
    assert balance.k == 0.0
    balance.eval()(torch.ones(2), torch.zeros(2))
    assert balance.k == 0.0


def test_a_batch_that_overflowed_leaves_the_balance_and_halves_keep_its_steps():
    balance = gf.BoundaryEquilibrium(start_value=0.5).bfloat16()
    balance(torch.tensor([torch.inf]), torch.ones(1))
    balance(torch.tensor([torch.nan]), torch.ones(1))
    assert balance.k == 0.5
    balance(torch.ones(1), torch.zeros(1))
    assert balance.k != 0.5  # a step of 0.00075, which bfloat16 does not see


def test_lists_add_up_and_the_loss_is_of_the_balance_before():
    real, fake = torch.rand(2, 4, 3)
    step = gf.BoundaryEquilibrium(start_value=0.5)([real, 2 * real], [fake, fake])
    torch.testing.assert_close(step.loss, 3 * real.mean() - 0.5 * 2 * fake.mean())


def test_fifty_steps_are_those_of_the_plain_form():
    def trained(balance) -> Tensor:
        torch.manual_seed(2)
        critic = nn.Linear(4, 4)
        optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
        for _ in range(50):
            scores = [(x - critic(x)).abs() for x in torch.randn(2, 8, 4)]
            optimizer.zero_grad()
            loss = balance(*scores)
            (loss if isinstance(loss, Tensor) else loss.loss).backward()
            optimizer.step()
        return nn.utils.parameters_to_vector(critic.parameters())

    options = {"learning_rate": 0.1}
    torch.testing.assert_close(
        trained(gf.BoundaryEquilibrium(**options)), trained(Plain(rate=0.1)), rtol=1e-3, atol=1e-5
    )


def test_one_graph_under_the_compiler(fresh_compiler):
    balance, other = gf.BoundaryEquilibrium(), gf.BoundaryEquilibrium()
    compiled = torch.compile(balance, fullgraph=True, backend="aot_eager")
    real, fake = torch.rand(2, 4, 3)
    for _ in range(2):
        torch.testing.assert_close(compiled(real, fake).loss, other(real, fake).loss)
    torch.testing.assert_close(balance.k, other.k)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gf.BoundaryEquilibrium(start_value=2.0), "start_value"),
        (lambda: gf.BoundaryEquilibrium(gamma="1"), "gamma"),
        (lambda: gf.BoundaryEquilibrium()(torch.ones(2).long(), torch.ones(2)), "real_scores"),
        (lambda: gf.BoundaryEquilibrium()(torch.ones(2), []), "fake_scores"),
    ],
)
def test_wrong_calls_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
