"""The criterion of SPADE: the mean over discriminators, [1] for a list."""

from __future__ import annotations

import pytest
import torch
from image_codebases import DTYPES, assert_same, assert_trains_alike, logits, one_sided_step
from torch.nn import functional as F

from ganloss_fast.compat.spade import GANLoss

MODES = ("ls", "original", "w", "hinge")


def plain_loss(mode, x, target_is_real, for_discriminator, labels):
    target = torch.full_like(x, labels[0] if target_is_real else labels[1])
    if mode == "ls":
        return F.mse_loss(x, target)
    if mode == "original":
        return F.binary_cross_entropy_with_logits(x, target)
    if mode == "w":
        return -x.mean() if target_is_real else x.mean()
    if not for_discriminator:
        return -x.mean()
    z = x if target_is_real else -x
    return -torch.min(z - 1, torch.zeros_like(z)).mean()


def plain_criterion(mode, labels=(1.0, 0.0)):
    def criterion(outputs, target_is_real, for_discriminator=True):
        if not isinstance(outputs, list):
            return plain_loss(mode, outputs, target_is_real, for_discriminator, labels)
        total = 0
        for output in outputs:
            output = output[-1] if isinstance(output, list) else output
            loss = plain_loss(mode, output, target_is_real, for_discriminator, labels)
            total = total + loss.view(1, -1).mean(dim=1)
        return total / len(outputs)

    return criterion


def nested(dtype):
    return [
        [logits(2, 4, 6, 6, dtype=dtype), logits(2, 1, 5, 5, dtype=dtype, seed=1)],
        [logits(2, 4, 3, 3, dtype=dtype, seed=2), logits(2, 1, 2, 2, dtype=dtype, seed=3)],
        logits(2, 1, 4, dtype=dtype, seed=4),
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", [(True,), (False,), (True, False)])
@pytest.mark.parametrize("labels", [(1.0, 0.0), (0.9, 0.2)])
def test_one_side_is_the_formula(mode, dtype, call, labels):
    ours, plain = GANLoss(mode, *labels), plain_criterion(mode, labels)
    for outputs in (logits(2, 1, 5, 5, dtype=dtype), nested(dtype)):
        assert_same(lambda x: ours(x, *call), lambda x: plain(x, *call), outputs)


@pytest.mark.parametrize("mode", ["ls", "original", "w"])
def test_a_generator_may_aim_at_the_fake_side(mode):
    ours, plain = GANLoss(mode), plain_criterion(mode)
    assert_same(lambda x: ours(x, False, False), lambda x: plain(x, False, False), logits(3, 2))


def test_a_hinge_generator_may_not():
    with pytest.raises(ValueError, match="target_is_real: a generator's hinge loss aims"):
        GANLoss("hinge")(logits(2), False, False)


def test_unknown_modes_list_the_known_ones():
    with pytest.raises(ValueError, match="gan_mode: expected one of ls, original, w, hinge"):
        GANLoss("lsgan", tensor=torch.FloatTensor, opt=object())


def test_targets_and_zeros_have_the_shape_of_the_logits():
    loss, x = GANLoss("ls", 0.9), torch.zeros(2, 3)
    assert torch.equal(loss.get_target_tensor(x, True), torch.full((2, 3), 0.9))
    assert torch.equal(loss.get_zero_tensor(x), x)


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        ([], ValueError, "input: expected at least one discriminator output"),
        ([[[logits(2)]]], ValueError, r"input\[0\]\[-1\]: .* one level too deep"),
        ({"logits": logits(2)}, TypeError, "input: expected a tensor, got a dict"),
    ],
)
def test_wrong_nesting_says_which_level(outputs, error, message):
    with pytest.raises(error, match=message):
        GANLoss("ls")(outputs, True)


@pytest.mark.parametrize("mode", MODES)
def test_fifty_steps_train_alike(mode):
    ours, plain = (
        one_sided_step(criterion, for_generator=[False])
        for criterion in (GANLoss(mode), plain_criterion(mode))
    )
    assert_trains_alike(ours, plain)
