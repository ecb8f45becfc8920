"""What the tests of the drop-ins for image codebases share: comparisons, small nets, a training.

A test writes the codebase's formula out in plain PyTorch; nothing of it comes from the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12}
DTYPES = (torch.float32, torch.float64)


def logits(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Logits on both sides of every kink, requiring grad."""
    generator = torch.Generator().manual_seed(seed)
    drawn = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return drawn.to(dtype).requires_grad_()


def again(value: Any) -> Any:
    """The same values in new leaves, inside the same lists."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, (list, tuple)):
        return type(value)(again(item) for item in value)
    return value


def leaves(value: Any) -> list[Tensor]:
    """The tensors in nested lists that require grad."""
    if isinstance(value, Tensor):
        return [value] if value.requires_grad else []
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    return []


def assert_near(ours: Tensor, plain: Tensor, tolerance: float) -> None:
    assert ours.shape == plain.shape
    scale = plain.detach().abs().max().clamp(min=1e-3) if plain.numel() else 1.0
    assert ((ours.detach() - plain.detach()).abs() <= tolerance * scale).all(), (ours, plain)


def outputs_of(result: Any) -> list[Tensor]:
    return list(result) if isinstance(result, (list, tuple)) else [result]


def assert_same(
    ours: Callable[..., Any],
    plain: Callable[..., Any],
    *inputs: Any,
    tolerance: float | None = None,
) -> None:
    """Equal in type, structure, shapes, dtypes, values and the gradients of every input."""
    of_ours, of_plain = again(list(inputs)), again(list(inputs))
    results = ours(*of_ours), plain(*of_plain)
    assert type(results[0]) is type(results[1])
    actual, wanted = map(outputs_of, results)
    assert len(actual) == len(wanted)
    for a, w in zip(actual, wanted, strict=True):
        assert a.dtype == w.dtype
        assert a.requires_grad == w.requires_grad
        assert_near(a, w, tolerance or TOLERANCE[w.dtype])
    # Each output with a factor of its own, so that none can stand in for another.
    totals = [
        sum((k + 1.5) * output.sum() for k, output in enumerate(outputs) if output.requires_grad)
        for outputs in (actual, wanted)
    ]
    if not isinstance(totals[1], Tensor):
        return
    pairs = zip(
        torch.autograd.grad(totals[0], leaves(of_ours), allow_unused=True),
        torch.autograd.grad(totals[1], leaves(of_plain), allow_unused=True),
        strict=True,
    )
    for a, w in pairs:
        if w is None:
            assert a is None or not a.any()
        else:
            assert a.dtype == w.dtype
            assert_near(a, w, tolerance or TOLERANCE[w.dtype])


def assert_same_parameters_of(
    penalty: Callable[[nn.Module], Tensor],
    plain: Callable[[nn.Module], Tensor],
    net: nn.Module,
    tolerance: float = 1e-12,
    seed: int = 3,
) -> None:
    """Equal values of a penalty on a net, and equal gradients of its parameters, seed for seed."""
    values, gradients = [], []
    for function in (penalty, plain):
        torch.manual_seed(seed)
        values.append(function(net))
        gradients.append(torch.autograd.grad(values[-1], list(net.parameters()), allow_unused=True))
    assert values[0].dtype == values[1].dtype
    assert_near(values[0], values[1], tolerance)
    for ours, wanted in zip(*gradients, strict=True):
        if wanted is None:
            assert ours is None or not ours.any()
        else:
            assert ours is not None
            assert_near(ours, wanted, tolerance)


# ---- a training --------------------------------------------------------------------------------


class Generator(nn.Module):
    """[B, 4] to images [B, 3, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 3 * 8 * 8), nn.Tanh()
        )

    def forward(self, z: Tensor, c: Any = None) -> Tensor:
        return self.layers(z).view(-1, 3, 8, 8)


def critic() -> nn.Module:
    """Images to patch logits [B, 1, 4, 4]."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3, 1, 1))


class Labelled(nn.Module):
    """A critic [B] that takes labels, which it ignores, as conditional codebases call theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(8 * 4 * 4, 1)
        )

    def forward(self, x: Tensor, c: Any = None, **_: Any) -> Tensor:
        return self.layers(x).flatten()


def seeded(make: Callable[[], nn.Module], seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return make().double()


def images(seed: int = 0, batch: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 8, 8, generator=generator, dtype=torch.float64)


Step = Callable[[nn.Module, nn.Module, Tensor, Tensor], tuple[Tensor, Callable[[], Tensor]]]
"""(G, D, real, z) to the critic's loss, and a function for the generator's after its step."""


def parameters_after(step: Step, make_critic: Callable[[], nn.Module], steps: int) -> list[Tensor]:
    G, D = seeded(Generator, 5), seeded(make_critic, 6)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9) for net in (G, D)]
    torch.manual_seed(7)
    for k in range(steps):
        z = torch.randn(4, 4, dtype=torch.float64)
        critic_loss, generator_loss = step(G, D, images(k), z)
        D.zero_grad()
        critic_loss.backward()
        optimizers[1].step()
        G.zero_grad()
        generator_loss().backward()
        optimizers[0].step()
    return [p.detach() for net in (G, D) for p in net.parameters()]


def assert_trains_alike(
    ours: Step,
    plain: Step,
    make_critic: Callable[[], nn.Module] = critic,
    steps: int = 50,
    tolerance: float = 1e-10,
) -> None:
    """The same parameters after 50 steps of both players."""
    start = [p.detach() for net in (seeded(Generator, 5),) for p in net.parameters()]
    actual = parameters_after(ours, make_critic, steps)
    wanted = parameters_after(plain, make_critic, steps)
    assert (actual[0] - start[0]).abs().max() > 1e-3, "nothing was trained"
    for a, w in zip(actual, wanted, strict=True):
        assert_near(a, w, tolerance)


def one_sided_loss(mode, x, is_real, is_disc, labels=(1.0, 0.0), weight=1.0):
    """The criterion of BasicSR and of mmagic, written out."""
    target = torch.full_like(x, labels[0] if is_real else labels[1])
    if mode == "vanilla":
        loss = F.binary_cross_entropy_with_logits(x, target)
    elif mode == "lsgan":
        loss = F.mse_loss(x, target)
    elif mode == "l1":
        loss = F.l1_loss(x, target)
    elif mode == "wgan":
        loss = -x.mean() if is_real else x.mean()
    elif mode in ("wgan_softplus", "wgan-logistic-ns"):
        loss = F.softplus(-x if is_real else x, threshold=40).mean()
    elif is_disc:
        loss = F.relu(1 - x if is_real else 1 + x).mean()
    else:
        loss = -x.mean()
    return loss if is_disc else loss * weight


def one_sided_step(
    criterion: Callable[..., Tensor],
    half: float = 1.0,
    for_generator: Sequence[Any] = (),
    for_critic: Sequence[Any] = (),
) -> Step:
    """A training step with a criterion that is called once for each side."""

    def step(G: nn.Module, D: nn.Module, real: Tensor, z: Tensor):
        fake = G(z)
        real_loss = criterion(D(real), True, *for_critic)
        fake_loss = criterion(D(fake.detach()), False, *for_critic)
        return (
            (real_loss.mean() + fake_loss.mean()) * half,
            lambda: criterion(D(fake), True, *for_generator).mean(),
        )

    return step
