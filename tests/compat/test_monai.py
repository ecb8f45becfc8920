"""The criterion of MONAI: activations on the logits, reductions, a list for "none"."""

from __future__ import annotations

import enum

import pytest
import torch
from image_codebases import DTYPES, assert_same, assert_trains_alike, logits
from torch.nn import functional as F

from ganloss_fast.compat.monai import PatchAdversarialLoss

CRITERIA = ("bce", "hinge", "least_squares")


def plain_criterion(reduction="mean", criterion="least_squares", no_activation_leastsq=False):
    def one(x, is_real):
        if criterion == "bce":
            target = torch.full_like(x, float(is_real))
            return F.binary_cross_entropy_with_logits(x, target, reduction=reduction)
        if criterion == "hinge":
            z = torch.tanh(x) if is_real else -torch.tanh(x)
            return -torch.min(z - 1, torch.zeros_like(z)).mean()
        if not no_activation_leastsq:
            x = F.leaky_relu(x, 0.05)
        return F.mse_loss(x, torch.full_like(x, float(is_real)), reduction=reduction)

    def call(outputs, target_is_real, for_discriminator):
        outputs = outputs if isinstance(outputs, list) else [outputs]
        losses = [one(x, target_is_real or not for_discriminator) for x in outputs]
        if reduction == "none":
            return losses
        return getattr(torch.stack(losses), reduction)()

    return call


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", [(True, True), (False, True), (True, False)])
def test_one_side_is_the_formula(criterion, reduction, dtype, call):
    ours, plain = (make(reduction, criterion) for make in (PatchAdversarialLoss, plain_criterion))
    several = [logits(2, 1, 5, 5, dtype=dtype), logits(2, 1, 3, dtype=dtype, seed=1)]
    for outputs in (several, several[0]):
        assert_same(lambda x: ours(x, *call), lambda x: plain(x, *call), outputs)


def test_the_defaults_are_least_squares_behind_a_leaky_relu():
    assert_same(
        lambda x: PatchAdversarialLoss()(x, False, True),
        lambda x: F.leaky_relu(x, 0.05).square().mean(),
        logits(2, 3),
    )


def test_the_leaky_relu_may_be_left_out():
    ours = PatchAdversarialLoss(no_activation_leastsq=True)
    assert_same(lambda x: ours(x, True, True), lambda x: (x - 1).square().mean(), logits(2, 3))


def test_a_generator_always_aims_at_the_real_side():
    ours, plain = PatchAdversarialLoss("sum", "hinge"), plain_criterion("sum", "hinge")
    with pytest.warns(UserWarning, match="aims at the real side"):
        assert_same(lambda x: ours(x, False, False), lambda x: plain(x, True, False), logits(3))


def test_binary_cross_entropy_does_not_end_at_100():
    x = torch.tensor([-500.0], requires_grad=True)
    loss = PatchAdversarialLoss(criterion="bce")(x, True, True)
    loss.backward()
    assert loss.item() == 500
    assert x.grad.item() == -1


class LossReduction(str, enum.Enum):
    SUM = "sum"


def test_enums_of_monai_are_names():
    ours = PatchAdversarialLoss(LossReduction.SUM, "BCE")
    assert (ours.reduction, ours.criterion) == ("sum", "bce")


@pytest.mark.parametrize("criterion", CRITERIA)
def test_targets_have_the_labels_of_the_criterion(criterion):
    loss, x = PatchAdversarialLoss(criterion=criterion), torch.zeros(2)
    assert loss.get_target_tensor(x, True).tolist() == [1, 1]
    fake = -1 if criterion == "hinge" else 0
    assert loss.get_target_tensor(x, False).tolist() == [fake, fake]
    assert loss.get_zero_tensor(x).tolist() == [0, 0]


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="criterion: expected one of bce, hinge, least_squares"):
        PatchAdversarialLoss(criterion="wgan")
    with pytest.raises(ValueError, match="reduction: expected one of mean, sum, none"):
        PatchAdversarialLoss(reduction="max")


def test_nested_lists_say_which_level():
    with pytest.raises(ValueError, match=r"input: .*entry 0 is a list of 1"):
        PatchAdversarialLoss()([[logits(2)]], True, True)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_fifty_steps_train_alike(criterion):
    def step_with(loss):
        def step(G, D, real, z):
            fake = G(z)
            both = loss(D(real), True, True) + loss(D(fake.detach()), False, True)
            return 0.5 * both, lambda: loss(D(fake), True, False)

        return step

    ours, plain = PatchAdversarialLoss(criterion=criterion), plain_criterion(criterion=criterion)
    assert_trains_alike(step_with(ours), step_with(plain))
