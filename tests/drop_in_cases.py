"""A drop-in beside its formula in plain PyTorch: values, gradients, kinds of results."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

DTYPES = (torch.float64, torch.float32)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def draw(*shapes: Any, dtype: torch.dtype = torch.float64, seed: int = 0) -> Any:
    """Nested lists of shapes (tuples) as nested lists of leaves."""
    generator = torch.Generator().manual_seed(seed)

    def tensors(shape: Any) -> Any:
        if isinstance(shape, list):
            return [tensors(entry) for entry in shape]
        drawn = torch.randn(shape, dtype=torch.float64, generator=generator)
        return drawn.to(dtype).requires_grad_()

    drawn = [tensors(shape) for shape in shapes]
    return drawn[0] if len(drawn) == 1 else drawn


def as_kind(value: Any) -> Any:
    """What a caller can see of a result without its numbers."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.requires_grad
    return type(value)


def gradients(result: Any, inputs: list[Any]) -> list[Tensor | None]:
    """Of all differentiable results, in proportions of their own."""
    found = [t for t in tree_leaves(result) if isinstance(t, Tensor) and t.requires_grad]
    total = sum(t.sum() * (k + 1) for k, t in enumerate(found))
    leaves = tree_leaves(inputs)
    return list(torch.autograd.grad(total, leaves, allow_unused=True)) if found else []


def assert_same(
    ours: Callable[..., Any], plain: Callable[..., Any], *inputs: Any, kinds: bool = True
) -> None:
    """Both give the same results of the same kinds, and the same gradients."""
    dtype = tree_leaves(list(inputs))[0].dtype
    results = ours(*inputs), plain(*inputs)
    (values, structure), (wanted, published) = map(tree_flatten, results)
    assert structure == published
    for a, b in zip(values, wanted, strict=True):
        if kinds:
            assert as_kind(a) == as_kind(b)
        torch.testing.assert_close(
            torch.as_tensor(a, dtype=dtype),
            torch.as_tensor(b, dtype=dtype),
            rtol=TOLERANCE[dtype],
            atol=TOLERANCE[dtype],
        )
    pairs = zip(*(gradients(result, list(inputs)) for result in results), strict=True)
    for a, b in pairs:
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def detached(nested: Any) -> Any:
    return tree_map(lambda t: t.detach(), nested)


def maps_and_logits(widths: tuple[int, ...] = (4, 4), heads: int = 2) -> nn.Module:
    """A small multi-scale discriminator: logits, and feature maps of every part."""

    class Discriminators(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(
                nn.ModuleList(
                    nn.Conv1d(a, b, 3, padding=1) for a, b in zip((1, *widths), (*widths, 1))
                )
                for _ in range(heads)
            )

        def forward(self, x: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
            logits, maps = [], []
            for part in self.parts:
                found = [x]
                for layer in part:
                    found.append(nn.functional.leaky_relu(layer(found[-1]), 0.1))
                logits.append(found[-1].flatten(1))
                maps.append(found[1:])
            return logits, maps

    return Discriminators()


def waveform_generator() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv1d(4, 1, 3, padding=1))


def assert_training_agrees(
    step_ours: Callable[..., None],
    step_plain: Callable[..., None],
    networks: tuple[nn.Module, nn.Module],
    draw_batch: Callable[[torch.Generator], tuple[Tensor, ...]],
    steps: int = 50,
    rtol: float = 1e-9,
    atol: float = 1e-10,
) -> None:
    """Fifty steps of both optimizers from the same start, in float64.

    A step takes ``(generator, critic, optimizer of G, optimizer of D, *batch)``.
    """
    trained = []
    for step in (step_ours, step_plain):
        generator, critic = (copy.deepcopy(network).double() for network in networks)
        optimizers = [torch.optim.Adam(m.parameters(), 1e-3) for m in (generator, critic)]
        draws = torch.Generator().manual_seed(7)
        for _ in range(steps):
            step(generator, critic, *optimizers, *(t.double() for t in draw_batch(draws)))
        trained.append([p.detach() for m in (generator, critic) for p in m.parameters()])
    for a, b in zip(*trained, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def waveforms(draws: torch.Generator) -> tuple[Tensor, ...]:
    """Noise, and real audio."""
    return tuple(torch.randn(2, 2, 1, 16, generator=draws, dtype=torch.float64).unbind())
