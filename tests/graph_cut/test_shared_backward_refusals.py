"""Critics that cannot share a backward, planted or real: found out, and right all the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from critics import dcgan
from shared_steps import (
    distance,
    gradients,
    labels,
    linear,
    our_pair,
    parameter,
    refusal,
    step,
    stock_pair,
    two_copies,
    written,
)
from torch import nn

import ganloss_fast as gf
from ganloss_fast import backends
from ganloss_fast.graph_cut import shared_backward

pytestmark = pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")

conv = nn.Conv2d


def unmixed(permutation, back):
    """Rows in another order, a layer, and the order of before."""
    return written(
        lambda x, a, b: b(back(F.relu(a(permutation(x))), x)), linear(9, 8), linear(8, 1)
    )


def sorted_rows(x):
    return x[:, 0].argsort()


class Flip(torch.autograd.Function):
    """An operation of which nobody knows what it does."""

    @staticmethod
    def forward(ctx, x):
        return x.flip(0)

    @staticmethod
    def backward(ctx, grad):
        return Flip.apply(grad)


MIXING = {
    "mean over the batch": (
        written(lambda x, a, b: b(F.relu(a(x)) - F.relu(a(x)).mean(0)), linear(9, 8), linear(8, 1)),
        (8, 9),
        "MeanBackward1",
    ),
    "a gate that starts at zero": (
        written(
            lambda x, a, b, g: b(F.relu(a(x)) + g * F.relu(a(x)).mean(0, keepdim=True)),
            linear(9, 8),
            linear(8, 1),
            lambda: nn.Parameter(torch.zeros(())),
        ),
        (6, 9),
        "MeanBackward1",
    ),
    "flip": (unmixed(lambda x: x.flip(0), lambda h, x: h.flip(0)), (6, 9), "FlipBackward0"),
    "roll": (unmixed(lambda x: x.roll(1, 0), lambda h, x: h.roll(-1, 0)), (6, 9), "RollBackward0"),
    "sort": (
        unmixed(lambda x: x[sorted_rows(x)], lambda h, x: h[sorted_rows(x).argsort()]),
        (6, 9),
        "another order",
    ),
    "select": (
        unmixed(
            lambda x: x.index_select(0, sorted_rows(x)),
            lambda h, x: h.index_select(0, sorted_rows(x).argsort()),
        ),
        (6, 9),
        "IndexSelectBackward0",
    ),
    "pieces of the batch": (
        written(
            lambda x, a, b: b(torch.cat([F.relu(a(part)) for part in x.split(3)])),
            linear(9, 8),
            linear(8, 1),
        ),
        (6, 9),
        "SplitBackward0",
    ),
    "a matrix over the samples": (
        written(
            lambda x, a, b, w: b(w @ F.relu(a(x))), linear(9, 8), linear(8, 1), parameter(6, 6)
        ),
        (6, 9),
        "MmBackward0",
    ),
    "time before the batch": (
        written(
            lambda x, a, b: b(F.relu(a(x.permute(1, 0, 2))).permute(1, 0, 2).flatten(1)),
            linear(4, 8),
            linear(40, 1),
        ),
        (3, 5, 4),
        "PermuteBackward0",
    ),
    "a packed sequence": (
        written(
            lambda x, a, b: b(
                nn.utils.rnn.pad_packed_sequence(
                    nn.utils.rnn.PackedSequence(
                        F.relu(a(nn.utils.rnn.pack_padded_sequence(x, [5, 4, 2], True).data)),
                        torch.tensor([3, 3, 2, 2, 1]),
                    ),
                    True,
                )[0].flatten(1)
            ),
            linear(4, 8),
            linear(40, 1),
        ),
        (3, 5, 4),
        "Pack",
    ),
    "written in place": (
        written(
            lambda x, a, b: b(torch.zeros_like(x).index_copy(0, labels(x) * 0 + 1, x) + a(x)),
            linear(9, 9),
            linear(9, 1),
        ),
        (6, 9),
        "IndexCopyBackward0",
    ),
    "an operation of its own": (
        unmixed(Flip.apply, lambda h, x: Flip.apply(h)),
        (6, 9),
        "samples interact",
    ),
}
CURVED = {
    "SiLU": lambda: nn.SiLU(),
    "GELU": lambda: nn.GELU(),
    "Softplus": lambda: nn.Softplus(),
    "Tanh": lambda: nn.Tanh(),
    "LayerNorm": lambda: nn.LayerNorm(8),
}
OTHERS = {
    **MIXING,
    **{
        name: (
            lambda make=make: nn.Sequential(nn.Linear(9, 8), make(), nn.Linear(8, 1)),
            (6, 9),
            "curved",
        )
        for name, make in CURVED.items()
    },
    "batch normalisation": (
        lambda: nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 1, 6)),
        (4, 3, 8, 8),
        "normalisation",
    ),
    "instance normalisation": (
        lambda: nn.Sequential(conv(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU(), conv(4, 1, 6)),
        (4, 3, 8, 8),
        "normalisation",
    ),
    "patches": (lambda: nn.Sequential(conv(3, 4, 3), nn.ReLU(), conv(4, 1, 3)), (4, 3, 8, 8), "64"),
    "a bilinear form": (
        written(lambda x, a, b: (a(x) * b(x)).sum(1), linear(9, 8), linear(9, 8)),
        (6, 9),
        "curved",
    ),
}


@pytest.mark.filterwarnings("ignore:.*the statistics of the batch")
@pytest.mark.parametrize("name", OTHERS)
def test_others_are_refused_and_right(name):
    make, shape, reason = OTHERS[name]
    ours, theirs = two_copies(make)
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    for _ in range(2):
        value = step(ours, real, fake, our_pair)
        assert abs(value - step(theirs, real, fake, stock_pair)) <= 1e-13 * value.abs()
    assert distance(gradients(ours), gradients(theirs)) < 1e-13
    x = real.clone().requires_grad_()
    assert reason in refusal(ours(x), x)


def test_a_look_compares_every_layer():
    """The input's gradient of rows that are put back in order is in order; a layer's is not."""
    critic = unmixed(Flip.apply, lambda h, x: Flip.apply(h))().double()
    x = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    factors = torch.exp2(torch.arange(6.0, dtype=torch.float64))[:, None]
    logits = critic(x)
    (once,) = torch.autograd.grad(logits.sum(), x, retain_graph=True)
    (scaled,) = torch.autograd.grad(logits, x, factors, retain_graph=True)
    assert torch.equal(scaled, factors * once)
    assert "interact" in refusal(logits, x)


class Routed(torch.autograd.Function):
    """Swaps its first two rows where a flag is set."""

    swaps = False

    @staticmethod
    def forward(ctx, x):
        return x[[1, 0, *range(2, len(x))]] if Routed.swaps else x.clone()

    @staticmethod
    def backward(ctx, grad):
        return Routed.apply(grad)


def test_operations_of_ones_own_are_looked_at_again(monkeypatch):
    critic = unmixed(Routed.apply, lambda h, x: Routed.apply(h))().double()
    x = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    assert refusal(critic(x), x) == ""
    monkeypatch.setattr(Routed, "swaps", True)
    assert "interact" in refusal(critic(x), x)  # the second call


@pytest.mark.parametrize("start", ["zero head", "dead units"])
def test_a_zero_gradient_shows_nothing(start):
    """An operation that mixes samples, below what lets no gradient through at first."""
    critic = unmixed(Flip.apply, lambda h, x: Flip.apply(h))().double()
    with torch.no_grad():
        if start == "zero head":
            critic.layer1.weight.zero_()
        else:
            critic.layer0.bias.fill_(-100)
    x = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    for _ in range(4):  # an operation that passed would be looked at in calls 1, 2, 4, 8
        assert refusal(critic(x), x) == ""  # with gradients that are zero it is right
    with torch.no_grad():
        critic.layer1.weight.fill_(1)
        critic.layer0.bias.zero_()
    assert "interact" in refusal(critic(x), x)


@pytest.mark.parametrize("in_order", [True, False])
def test_where_looking_waits_another_order_makes_nan(monkeypatch, in_order):
    """As on a GPU: never a wrong number, and none is asked for."""
    monkeypatch.setattr(shared_backward, "looking_waits", lambda device: True)

    def pick(x, a, b):
        rows = torch.arange(len(x))
        return b(F.relu(a(x)))[rows if in_order else rows.roll(1), labels(x)]

    ours, theirs = two_copies(written(pick, linear(9, 8), linear(8, 4)))
    x = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    shared_backward.record_of(shared_backward.begin(ours(x), [x])).due = float("inf")
    for critic, pair in ((ours, our_pair), (theirs, stock_pair)):
        logits, penalty = pair(critic(x), x)
        (logits.exp().mean() + penalty).backward()
    if in_order:
        assert distance(gradients(ours), gradients(theirs)) < 1e-13
    else:
        assert all(gradient.isnan().any() for gradient in gradients(ours))


def test_a_critic_is_looked_at_once(monkeypatch):
    looks = []
    draw = shared_backward.distinct_powers
    monkeypatch.setattr(
        shared_backward, "distinct_powers", lambda *args: looks.append(args) or draw(*args)
    )
    critic = dcgan(4, 16)
    for samples in (3, 3, 3, 4, 3):
        x = torch.randn(samples, 3, 16, 16, requires_grad=True)
        gf.logits_and_penalty(critic(x), x)
    assert [count for count, _ in looks] == [3, 4]
