"""Logits and a penalty that share one backward: who may, and the same gradients to rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from critics import CRITICS, dcgan
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
from torch.nn.utils import parametrizations

from ganloss_fast import backends
from ganloss_fast.diagnose import CountFlops

pytestmark = pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")

conv = nn.Conv2d


LAYERS = {
    "rows": (lambda: nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1)), (6, 10)),
    "as many rows as columns": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)),
        (6, 6),
    ),
    "one sample": (lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)), (1, 5)),
    "one column": (lambda: nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1)), (6, 1)),
    "tokens": (
        lambda: nn.Sequential(
            nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3, bias=False), nn.Flatten(), nn.Linear(15, 1)
        ),
        (3, 5, 4),
    ),
    "tokens, transposed": (
        written(
            lambda x, a, b: b(F.relu(a(x.transpose(1, 2))).flatten(1)), linear(5, 8), linear(32, 1)
        ),
        (3, 5, 4),
    ),
    "time folded into the rows": (
        written(
            lambda x, a, b: b(F.relu(a(x.reshape(-1, 4))).view(len(x), -1)),
            linear(4, 8),
            linear(40, 1),
        ),
        (3, 5, 4),
    ),
    "one dimension, groups, transposed": (
        lambda: nn.Sequential(
            nn.Conv1d(4, 8, 3, groups=2),
            nn.ReLU(),
            nn.ConvTranspose1d(8, 4, 4, 2, 1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Flatten(),
            nn.Linear(48, 1),
        ),
        (5, 4, 8),
    ),
    "dilated, strided": (
        lambda: nn.Sequential(conv(3, 8, 3, dilation=2), nn.ReLU(True), conv(8, 1, 3, stride=3)),
        (5, 3, 8, 8),
    ),
    "three dimensions": (
        lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 1, 2)),
        (3, 2, 6, 6, 6),
    ),
    "constant kernel": (
        written(
            lambda x, a, b: b(F.conv2d(F.relu(a(x)), x.new_ones(8, 1, 3, 3) / 9, groups=8)),
            lambda: conv(3, 8, 3),
            lambda: conv(8, 1, 4),
        ),
        (4, 3, 8, 8),
    ),
    "weight norm": (
        lambda: nn.Sequential(
            parametrizations.weight_norm(conv(3, 8, 4, 2, 1)), nn.ReLU(), conv(8, 1, 4)
        ),
        (4, 3, 8, 8),
    ),
    "spectral norm": (
        lambda: nn.Sequential(
            parametrizations.spectral_norm(conv(3, 8, 4, 2, 1)), nn.ReLU(), conv(8, 1, 4)
        ),
        (4, 3, 8, 8),
    ),
    "PReLU": (
        lambda: nn.Sequential(
            nn.Linear(9, 8), nn.PReLU(), nn.Linear(8, 8), nn.PReLU(8), nn.Linear(8, 1)
        ),
        (6, 9),
    ),
    "projection": (
        written(
            lambda x, a, b, e: b(F.relu(a(x))) + (e(labels(x)) * F.relu(a(x))).sum(1, keepdim=True),
            linear(9, 8),
            linear(8, 1),
            lambda: nn.Embedding(4, 8),
        ),
        (6, 9),
    ),
    "embedding beside": (
        written(
            lambda x, a, b, e: b(torch.cat([F.relu(a(x)), e(labels(x))], 1)),
            linear(9, 8),
            linear(11, 1),
            lambda: nn.Embedding(4, 3),
        ),
        (6, 9),
    ),
    "one logit of several": (
        written(
            lambda x, a, b: b(F.relu(a(x)))[torch.arange(len(x)), labels(x)],
            linear(9, 8),
            linear(8, 4),
        ),
        (6, 9),
    ),
    "a layer twice": (
        written(lambda x, a, b: b(F.relu(a(F.relu(a(x))))), linear(9, 9), linear(9, 1)),
        (6, 9),
    ),
    "a scale, a residual, a constant": (
        written(
            lambda x, a, b, g: b(F.hardtanh(x * g + F.relu(a(x)) + 0.7)),
            linear(9, 9),
            linear(9, 1),
            parameter(9),
        ),
        (6, 9),
    ),
    "bias of its own": (
        written(
            lambda x, a, b, c: b(F.leaky_relu(a(x) + c.view(1, -1, 1, 1), 0.2)).mean((1, 2, 3)),
            lambda: conv(3, 8, 3, bias=False),
            lambda: conv(8, 1, 3),
            parameter(8),
        ),
        (4, 3, 8, 8),
    ),
    "flip along another axis": (
        written(lambda x, a, b: b(F.relu(a(x.flip(1)))), linear(9, 8), linear(8, 1)),
        (6, 9),
    ),
    "dropout, maximum": (
        written(
            lambda x, a, b: b(F.dropout(a(x), 0.5).view(len(x), 4, 4).amax(2)),
            linear(9, 16),
            linear(4, 1),
        ),
        (6, 9),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_the_hand_written_step(name):
    make, shape = LAYERS[name]
    ours, theirs = two_copies(make)
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    value = step(ours, real, fake, our_pair)
    expected = step(theirs, real, fake, stock_pair)
    assert abs(value - expected) <= 1e-14 * expected.abs()
    assert distance(gradients(ours), gradients(theirs)) < 1e-13
    x = real.clone().requires_grad_()
    assert refusal(ours(x), x) == ""


SHARING = {"dcgan", "mlp", "spectral_resnet", "stylegan2", "mixed_activations"}
WHY_NOT = {
    "hifigan_period": "logits for 2 samples",
    "stylegan2_mbstd": "samples",
    "patchgan_instance_norm": "logits for 4 samples",
    "patchgan_batch_norm": "logits for 4 samples",
}


@pytest.mark.filterwarnings("ignore:.*the statistics of the batch")
@pytest.mark.parametrize("name", CRITICS)
def test_every_critic_shares_or_is_refused_for_the_right_reason(name):
    ours, theirs = two_copies(CRITICS[name].make)
    real, fake = torch.randn(2, *CRITICS[name].shape, dtype=torch.float64)
    value = step(ours, real, fake, our_pair)
    assert abs(value - step(theirs, real, fake, stock_pair)) <= 1e-13 * value.abs()
    assert distance(gradients(ours), gradients(theirs)) < 1e-13
    x = real.clone().requires_grad_()
    why = refusal(ours(x), x)
    assert (why == "") == (name in SHARING)
    assert WHY_NOT.get(name, "") in why


@pytest.mark.parametrize(("penalties", "stock", "shared"), [("r1 r2", 12, 8), ("r1", 9, 7)])
def test_flops(penalties, stock, shared):
    """In units of one forward. With R1 alone stock's other forward and backward cost 3."""
    critic, images = dcgan(8, 32), torch.randn(2, 8, 3, 32, 32)
    with CountFlops() as forward:
        critic(images[0])

    def flops(pair) -> float:
        real, fake = (x.clone().requires_grad_() for x in images)
        with CountFlops() as counter:
            real_logits, penalty = pair(critic(real), real)
            fake_logits = critic(fake if "r2" in penalties else images[1])
            if "r2" in penalties:
                fake_logits, r2 = pair(fake_logits, fake)
                penalty = penalty + r2
            (F.softplus(fake_logits - real_logits).mean() + penalty).backward()
        return counter.total / forward.total

    flops(our_pair)  # looks at the critic
    # The other forward has no gradient of its input to compute: less than 3 by its first layer.
    assert flops(stock_pair) == pytest.approx(stock, abs=0.3 if stock == 9 else 0.01)
    assert flops(our_pair) == pytest.approx(shared, abs=0.3 if stock == 9 else 0.01)
    assert flops(stock_pair) - flops(our_pair) == pytest.approx(stock - shared, abs=0.005)
