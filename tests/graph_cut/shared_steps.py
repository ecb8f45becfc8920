"""A critic's step whose logits serve the main loss and R1, in plain PyTorch and as a pair; and
critics of which it is known whether they can share."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganloss_fast as gf
from ganloss_fast.penalties import shared_backward

SHARED = "GanlossSharedBackward0"


def stock_pair(logits: Tensor, x: Tensor, weight: float = 5.0) -> tuple[Tensor, Tensor]:
    """The logits as they are, and R1 as everybody writes it."""
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return logits, weight * gradient.flatten(1).square().sum(1).mean()


def our_pair(logits: Tensor, x: Tensor, weight: float = 5.0) -> tuple[Tensor, Tensor]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fewer logits than samples")
        return gf.logits_and_penalty(logits, x, "r1", weight=weight)


def refusal(logits: Tensor, x: Tensor, **options) -> str:
    """Why the pair does not share a backward; "" if it does."""
    given = shared_backward.logits_given(logits, x, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fewer logits than samples")
        return shared_backward.shared_gradients(*given).refusal


Pair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def step(critic: nn.Module, real: Tensor, fake: Tensor, pair: Pair) -> Tensor:
    """Relativistic R1 + R2 as R3GAN has it, one backward; the loss."""
    torch.manual_seed(3)  # of dropout
    terms = []
    for x in (real, fake):
        x = x.detach().clone().requires_grad_()
        terms.append(pair(critic(x), x))
    (real_logits, r1), (fake_logits, r2) = terms
    loss = F.softplus(fake_logits - real_logits).mean() + r1 + r2
    loss.backward()
    return loss.detach()


def two_copies(make: Callable[[], nn.Module], dtype=torch.float64) -> tuple[nn.Module, nn.Module]:
    copies = []
    for _ in range(2):
        torch.manual_seed(7)
        copies.append(make().to(dtype))
    return copies[0], copies[1]


def distance(ours: list[Tensor | None], theirs: list[Tensor | None]) -> float:
    """Relative, on the scale of all gradients; None where and only where the other is None."""
    assert [g is None for g in ours] == [g is None for g in theirs]
    pairs = [
        (a.detach().double(), b.detach().double()) for a, b in zip(ours, theirs) if a is not None
    ]
    error = torch.stack([(a - b).norm() for a, b in pairs]).norm()
    return float(error / torch.stack([b.norm() for _, b in pairs]).norm())


def gradients(critic: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in critic.parameters()]


class Written(nn.Module):
    """Layers, and a forward that is written as a function of them."""

    def __init__(self, forward: Callable[..., Tensor], *layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = forward
        for k, layer in enumerate(layers):
            setattr(self, f"layer{k}", layer)
        self.count = len(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, *(getattr(self, f"layer{k}") for k in range(self.count)))


def written(forward: Callable[..., Tensor], *make: Callable[[], nn.Module | nn.Parameter]):
    return lambda: Written(forward, *(one() for one in make))


def linear(*shape: int, **options) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(*shape, **options)


def parameter(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(shape))


def labels(x):
    return torch.arange(len(x)) % 4


IMAGES = (4, 3, 16, 16)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))


def both(make, run, dtype=torch.float64):
    """``run(critic, pair)`` with the shared backward and with stock autograd's."""
    results = []
    for critic, pair in zip(two_copies(make, dtype), (our_pair, stock_pair)):
        torch.manual_seed(1)
        results.append((critic, run(critic, pair)))
    return results
