"""mmgeneration: mmagic's losses with weights, reductions and average factors of their own."""

from __future__ import annotations

import pytest
import torch
from drop_in_cases import DTYPES, assert_same, draw
from image_codebases import assert_trains_alike, one_sided_loss
from mmagic_penalties import plain_gp, plain_r1
from torch import nn

from ganloss_fast.compat import mmagic, mmgeneration


def weighted(loss, weight=None, reduction="mean", avg_factor=None):
    """mmgen's reduction of elements."""
    if weight is not None:
        loss = loss * weight
    if avg_factor is None:
        return {"mean": torch.mean, "sum": torch.sum, "none": lambda x: x}[reduction](loss)
    return loss.sum() / avg_factor if reduction == "mean" else loss


OPTIONS = [
    {},
    {"weight": 0.3},
    {"reduction": "sum"},
    {"reduction": "none", "weight": 2.0},
    {"weight": "map", "avg_factor": 3.0},
    {"weight": "map"},
    {"reduction": "none", "avg_factor": 3.0},
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_squares_are_weighed_and_reduced(options, dtype):
    if options.get("weight") == "map":
        options = {**options, "weight": torch.rand(4, 1, dtype=dtype)}
    assert_same(
        lambda x: mmgeneration.disc_shift_loss(x, **options),
        lambda x: weighted(x**2, **options),
        draw((4, 1), dtype=dtype),
    )


def test_a_module_takes_the_same_options():
    x = draw((4, 1))
    loss = mmgeneration.DiscShiftLoss(0.5, data_info={"pred": "logits"})
    torch.testing.assert_close(loss({"logits": x}), 0.5 * (x**2).mean())
    torch.testing.assert_close(loss({"logits": x}, reduction="sum"), 0.5 * (x**2).sum())
    plain = mmgeneration.DiscShiftLoss()
    torch.testing.assert_close(plain(x, avg_factor=2.0), (x**2).sum() / 2)
    assert loss.loss_name() == "loss_disc_shift"


def test_penalties_are_weighed_and_divided():
    torch.manual_seed(0)
    critic = nn.Conv2d(3, 1, 3).double()
    real, fake = (t.detach() for t in draw((2, 3, 4, 4), (2, 3, 4, 4)))

    def seeded(loss, *args, **kwargs):
        torch.manual_seed(3)
        return loss(*args, **kwargs)

    plain = seeded(mmagic.gradient_penalty_loss, critic, real, fake)
    for reduction in ("mean", "sum", "none"):
        ours = seeded(
            mmgeneration.gradient_penalty_loss, critic, real, fake, weight=3.0, reduction=reduction
        )
        torch.testing.assert_close(ours, 3.0 * plain)
    loss = mmgeneration.GradientPenaltyLoss(10.0)
    torch.testing.assert_close(seeded(loss, critic, real, fake, avg_factor=4.0), 10 * plain / 4)
    plain = mmagic.r1_gradient_penalty_loss(critic, real, norm_mode="HWC")
    info = {"discriminator": "disc", "real_data": "real"}
    loss = mmgeneration.R1GradientPenalty(0.5, "HWC", interval=2, data_info=info)
    outputs = {"disc": critic, "real": real, "iteration": 4}
    torch.testing.assert_close(loss(outputs), 0.5 * plain)
    assert loss({**outputs, "iteration": 5}) is None


def test_a_path_length_without_data_comes_with_its_mean():
    latents = torch.randn(2, 2, 3, requires_grad=True)

    def generator(noise, num_batches, return_latents):
        images = latents.sum(1)[:, :, None, None] * torch.ones(2, 3, 4, 4)
        return {"fake_img": images.tanh(), "latent": latents}

    def seeded(loss, **options):
        torch.manual_seed(3)
        return loss(generator, 2, torch.tensor(0.5), **options)

    ours = seeded(mmgeneration.GeneratorPathRegularizer(2.0))
    wanted = seeded(mmgeneration.gen_path_regularizer, weight=2.0)
    torch.testing.assert_close(ours, wanted)
    info = {"generator": "gen", "num_batches": "batch"}
    loss = mmgeneration.GeneratorPathRegularizer(data_info=info)
    assert loss({"gen": generator, "batch": 2}).shape == ()
    assert loss.mean_path_length != 0


def test_wrong_options_are_explained():
    x = draw((4, 1))
    with pytest.raises(ValueError, match="reduction"):
        mmgeneration.disc_shift_loss(x, reduction="batchmean")
    with pytest.raises(ValueError, match="avg_factor: it is what a sum is divided by"):
        mmgeneration.disc_shift_loss(x, reduction="sum", avg_factor=2.0)


def test_the_criterion_is_mmagics():
    assert mmgeneration.GANLoss is mmagic.GANLossComps


# ---- a training --------------------------------------------------------------------------------


def step_of(losses_of):
    """mmgen's trainer: what its modules find in one dict, added up; R1 every second step."""
    iterations = iter(range(10**6))

    def step(G, D, real, z):
        fake = G(z)
        gan, others = losses_of
        outputs = {
            "disc": D,
            "real_imgs": real,
            "fake_imgs": fake.detach(),
            "disc_pred_real": D(real),
            "disc_pred_fake": D(fake.detach()),
            "iteration": next(iterations),
        }
        loss = gan(outputs["disc_pred_fake"], False, True) + gan(
            outputs["disc_pred_real"], True, True
        )
        parts = [other(outputs) for other in others]
        loss = loss + sum(part for part in parts if part is not None)
        return loss, lambda: gan(D(fake), True, False)

    return step


OF_DISC = {"discriminator": "disc", "real_data": "real_imgs"}
OURS = [
    mmgeneration.DiscShiftLoss(0.1, data_info={"pred": "disc_pred_fake"}),
    mmgeneration.R1GradientPenalty(0.5, "HWC", interval=2, data_info=OF_DISC),
    mmgeneration.GradientPenaltyLoss(
        0.3, norm_mode="pixel", data_info={**OF_DISC, "fake_data": "fake_imgs"}
    ),
]
PLAIN = [
    lambda o: 0.1 * o["disc_pred_fake"].square().mean(),
    lambda o: (
        None if o["iteration"] % 2 else 0.5 * plain_r1(o["disc"], mode="HWC", real=o["real_imgs"])
    ),
    lambda o: 0.3 * plain_gp(o["disc"], samples=(o["real_imgs"], o["fake_imgs"])),
]


@pytest.mark.parametrize("mode", ["wgan-logistic-ns", "hinge"])
def test_fifty_steps_train_alike(mode):
    gan = mmgeneration.GANLoss(mode, loss_weight=0.5)
    assert_trains_alike(
        step_of((gan, OURS)),
        step_of((lambda *call: one_sided_loss(mode, *call, weight=0.5), PLAIN)),
    )
