"""The criterion of pix2pixHD: nested lists, the sum over discriminators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_codebases import DTYPES, assert_same, assert_trains_alike, logits
from torch import nn
from torch.nn import functional as F

from ganloss_fast.compat.pix2pixhd import GANLoss


def plain_criterion(use_lsgan=True, real_label=1.0, fake_label=0.0):
    distance = F.mse_loss if use_lsgan else F.binary_cross_entropy

    def criterion(outputs, target_is_real):
        label = real_label if target_is_real else fake_label
        if not isinstance(outputs[0], list):
            outputs = [outputs]
        return sum(distance(o[-1], torch.full_like(o[-1], label)) for o in outputs)

    return criterion


def nested(dtype=torch.float64):
    """Two discriminators, each with a feature map, which must not count."""
    return [
        [logits(2, 4, 6, 6, dtype=dtype), logits(2, 1, 5, 5, dtype=dtype, seed=1)],
        [logits(2, 4, 3, 3, dtype=dtype, seed=2), logits(2, 1, 2, 2, dtype=dtype, seed=3)],
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target_is_real", [True, False])
@pytest.mark.parametrize("labels", [(1.0, 0.0), (0.9, 0.2), (np.float32(0.5), 0)])
def test_the_last_of_every_discriminator_is_summed(dtype, target_is_real, labels):
    ours, plain = GANLoss(True, *labels), plain_criterion(True, *labels)
    assert_same(
        lambda x: ours(x, target_is_real), lambda x: plain(x, target_is_real), nested(dtype)
    )


def test_of_a_flat_list_the_last_counts():
    assert_same(lambda x: GANLoss()(x, True), lambda x: plain_criterion()(x, True), nested()[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_lsgan_outputs_are_probabilities(dtype):
    outputs = [[torch.rand(2, 3, dtype=dtype).requires_grad_()] for _ in range(2)]
    ours, plain = GANLoss(use_lsgan=False, tensor=torch.FloatTensor), plain_criterion(False)
    for target_is_real in (True, False):
        assert_same(
            lambda x, t=target_is_real: ours(x, t),
            lambda x, t=target_is_real: plain(x, t),
            outputs,
        )


def test_the_target_tensor_is_filled():
    target = GANLoss(target_fake_label=0.25).get_target_tensor(torch.zeros(2), False)
    assert target.tolist() == [0.25, 0.25]


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        (torch.zeros(2), TypeError, r"input: expected the discriminators' lists.*\[\[logits\]\]"),
        ([], ValueError, "input: expected at least one discriminator output, got an empty list"),
        ([[]], ValueError, r"input\[0\]: expected feature maps and logits, got an empty list"),
        (
            [[torch.zeros(2)], [[torch.zeros(2)]]],
            ValueError,
            r"input\[1\]\[-1\]: expected the logits of discriminator 1.*one level too deep",
        ),
        (
            [[torch.zeros(2)], torch.zeros(2)],
            TypeError,
            r"input\[1\]: expected the list \[maps..., logits\] of discriminator 1, got a tensor",
        ),
        (
            [torch.zeros(2), [torch.zeros(2)]],
            TypeError,
            r"input\[0\]: expected the list.*Pass \[logits\] for a discriminator without",
        ),
        ([[torch.zeros(2)], [None]], TypeError, r"input\[1\]\[-1\]: expected a tensor, got None"),
    ],
)
def test_wrong_nesting_says_which_level(outputs, error, message):
    with pytest.raises(error, match=message):
        GANLoss()(outputs, True)


class MultiScale(nn.Module):
    """Two discriminators on two scales, as lists [map, logits]."""

    def __init__(self):
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(3, 4, 3, 2, 1) for _ in range(2))
        self.last = nn.ModuleList(nn.Conv2d(4, 1, 3, 1, 1) for _ in range(2))

    def forward(self, x):
        outputs = []
        for first, last in zip(self.first, self.last, strict=True):
            features = F.leaky_relu(first(x), 0.2)
            outputs.append([features, last(features)])
            x = F.avg_pool2d(x, 2)
        return outputs


def step_with(criterion):
    def step(G, D, real, z):
        fake = G(z)
        loss = (criterion(D(real), True) + criterion(D(fake.detach()), False)) * 0.5
        return loss, lambda: criterion(D(fake), True)

    return step


def test_fifty_steps_train_alike():
    assert_trains_alike(step_with(GANLoss()), step_with(plain_criterion()), MultiScale)
