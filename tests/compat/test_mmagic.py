"""mmagic's criterion, its penalties, and path length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_codebases import (
    DTYPES,
    assert_near,
    assert_same,
    assert_same_parameters_of,
    assert_trains_alike,
    critic,
    images,
    logits,
    one_sided_loss,
    one_sided_step,
    seeded,
)
from mmagic_penalties import Styled, plain_gp, plain_path_length, plain_r1
from torch.nn import functional as F

from ganloss_fast.compat import mmagic

MODES = ("vanilla", "lsgan", "wgan", "hinge", "l1")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", [(1, True), (0, True), (1, False), (0, False)])
def test_one_side_is_the_formula(mode, dtype, call):
    for labels, weight in (((1.0, 0.0), 1.0), ((0.9, 0.2), np.float32(0.5))):
        loss = mmagic.GANLoss(mode, *labels, loss_weight=weight)
        assert_same(
            lambda x, loss=loss: loss(x, *call, mask=None),
            lambda x, c=(labels, float(weight)): one_sided_loss(mode, x, *call, *c),
            logits(2, 1, 5, 5, dtype=dtype),
        )


@pytest.mark.parametrize("mode", ["vanilla", "lsgan", "wgan", "wgan-logistic-ns", "hinge"])
@pytest.mark.parametrize("call", [(True, True), (False, True), (True, False)])
def test_the_criterion_of_its_stylegans_is_the_formula(mode, call):
    loss = mmagic.GANLossComps(mode, loss_weight=0.5)
    assert_same(
        lambda x: loss(x, *call), lambda x: one_sided_loss(mode, x, *call, weight=0.5), logits(2, 3)
    )


def test_unknown_types_list_the_known_ones():
    with pytest.raises(NotImplementedError, match="vanilla, lsgan, wgan, hinge, l1, smgan, got"):
        mmagic.GANLoss("wgan_softplus")
    with pytest.raises(NotImplementedError, match="Did you mean wgan-logistic-ns"):
        mmagic.GANLossComps("wgan-logistic")


@pytest.mark.parametrize("mode", MODES)
def test_fifty_steps_train_alike(mode):
    ours, theirs = (
        one_sided_step(criterion, for_generator=[False], for_critic=[True])
        for criterion in (mmagic.GANLoss(mode), lambda *call: one_sided_loss(mode, *call))
    )
    assert_trains_alike(ours, theirs)


# ---- smgan -------------------------------------------------------------------------------------


def plain_blur(x, size=(71, 71), sigma=(10.0, 10.0)):
    def weights(k):
        t = torch.arange(size[k], dtype=torch.float64) - size[k] // 2
        w = torch.exp(-(t**2) / (2 * sigma[k] ** 2))
        return w / w.sum()

    kernel = torch.outer(weights(0), weights(1)).to(x.dtype).repeat(x.shape[1], 1, 1, 1)
    padding = (size[0] // 2, size[1] // 2)
    return F.conv2d(x, kernel, padding=padding, groups=x.shape[1])


def mask(dtype=torch.float64):
    return (images(3)[:, :1] > 0).to(dtype)


@pytest.mark.parametrize("arguments", [{}, {"kernel_size": (5, 9), "sigma": (1.0, 3.0)}])
def test_the_blur_is_the_two_dimensional_filter(arguments):
    x = torch.rand(2, 3, 12, 10, dtype=torch.float64)
    assert_near(mmagic.GaussianBlur(**arguments)(x), plain_blur(x, *arguments.values()), 1e-12)


def test_the_blur_refuses_what_it_cannot_filter():
    with pytest.raises(ValueError, match="kernel_size: expected odd positive"):
        mmagic.GaussianBlur((4, 5))
    with pytest.raises(ValueError, match=r"x: expected shape \[B, C, H, W\]"):
        mmagic.GaussianBlur()(torch.zeros(2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [8, 5])
def test_smgan_labels_the_fakes_by_the_blurred_mask(dtype, size):
    loss = mmagic.GANLoss("smgan", loss_weight=0.1)

    def plain(x, is_real, is_disc):
        if size != 8:
            x = F.interpolate(x, size=(8, 8), mode="bilinear", align_corners=True)
        label = torch.full_like(x, float(is_real))
        if is_disc and not is_real:
            label = plain_blur(mask(dtype))
        mse = F.mse_loss(x, label)
        return mse if is_disc else 0.1 * (mse * mask(dtype) / mask(dtype).mean()).mean()

    for call in ((True, True), (False, True), (True, False)):
        assert_same(
            lambda x, c=call: loss(x, *c, mask=mask(dtype)),
            lambda x, c=call: plain(x, *c),
            logits(4, 1, size, size, dtype=dtype),
        )


def test_smgan_needs_its_mask():
    with pytest.raises(ValueError, match="mask: gan_type='smgan' needs the mask"):
        mmagic.GANLoss("smgan")(logits(1, 1, 4, 4), True)


# ---- penalties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["pixel", "HWC"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_penalties_are_the_formulas(mode, masked):
    m = mask() if masked else None
    assert_same_parameters_of(
        lambda D: mmagic.gradient_penalty_loss(D, images(), images(1), m, norm_mode=mode),
        lambda D: plain_gp(D, m, mode),
        seeded(critic),
    )
    assert_same_parameters_of(
        lambda D: mmagic.r1_gradient_penalty_loss(D, images(), m, norm_mode=mode),
        lambda D: plain_r1(D, m, mode),
        seeded(critic),
    )


def test_by_default_a_norm_is_that_of_a_pixel():
    assert_same_parameters_of(
        lambda D: mmagic.GradientPenaltyLoss(10.0)(D, images(), images(1)),
        lambda D: 10 * plain_gp(D),
        seeded(critic),
    )
    assert_same_parameters_of(
        lambda D: mmagic.r1_gradient_penalty_loss(D, images()), plain_r1, seeded(critic)
    )


def test_r1_under_a_loss_scaler_is_the_same():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert_same_parameters_of(
        lambda D: mmagic.r1_gradient_penalty_loss(D, images(), loss_scaler=scaler),
        plain_r1,
        seeded(critic),
    )


def test_a_loss_scaler_keeps_small_gradients_of_half_precision():
    def D(x):
        return (x * 2.0**-13 * 2.0**-13).flatten(1).sum(1)  # a gradient that float16 has not

    real = images().half()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    penalty = mmagic.r1_gradient_penalty_loss(D, real, norm_mode="HWC", loss_scaler=scaler)
    assert penalty.item() == pytest.approx(3 * 64 * 2.0**-52, abs=0)


def test_penalties_say_what_they_do_not_know():
    with pytest.raises(NotImplementedError, match="norm_mode: expected one of pixel, HWC"):
        mmagic.gradient_penalty_loss(critic(), images(), images(), norm_mode="CHW")
    with pytest.raises(ValueError, match="use_apex_amp: apex is not supported"):
        mmagic.r1_gradient_penalty_loss(critic(), images(), use_apex_amp=True)


def test_the_shift_loss_is_the_mean_square():
    assert_same(mmagic.disc_shift_loss, lambda x: x**2, logits(2, 3))
    assert_same(mmagic.DiscShiftLoss(), lambda x: 0.1 * (x**2).mean(), logits(2, 3))


# ---- losses of a dict --------------------------------------------------------------------------


def test_losses_find_their_arguments_in_a_dict():
    x = logits(2, 3)
    loss = mmagic.DiscShiftLossComps(0.5, data_info={"pred": "disc_pred_fake"})
    for result in (loss({"disc_pred_fake": x}), loss(outputs_dict={"disc_pred_fake": x})):
        assert_near(result, 0.5 * (x**2).mean(), 1e-12)
    assert_near(mmagic.DiscShiftLossComps()(x), (x**2).mean(), 1e-12)
    assert loss.loss_name() == "loss_disc_shift"


def test_penalties_of_a_dict_are_the_formulas():
    outputs = {"real_imgs": images(), "fake_imgs": images(1), "iteration": 4}
    gp = mmagic.GradientPenaltyLossComps(
        10.0,
        norm_mode="HWC",
        data_info={"discriminator": "disc", "real_data": "real_imgs", "fake_data": "fake_imgs"},
    )
    r1 = mmagic.R1GradientPenaltyComps(
        5.0, interval=2, data_info={"discriminator": "disc", "real_data": "real_imgs"}
    )
    assert_same_parameters_of(
        lambda D: gp({**outputs, "disc": D}),
        lambda D: 10 * plain_gp(D, mode="HWC"),
        seeded(critic),
    )
    assert_same_parameters_of(
        lambda D: r1({**outputs, "disc": D}), lambda D: 5 * plain_r1(D), seeded(critic)
    )
    assert r1({**outputs, "iteration": 5}) is None
    assert (gp.loss_name(), r1.loss_name()) == ("loss_gp", "loss_r1_gp")


def test_wrong_dicts_are_explained():
    loss = mmagic.DiscShiftLossComps(data_info={"pred": "missing"})
    with pytest.raises(KeyError, match=r"pred is to be read from 'missing'.*: there"):
        loss({"there": 1})
    with pytest.raises(TypeError, match="outputs_dict: with data_info, expected the dict"):
        loss(logits(2))
    with pytest.raises(ValueError, match="interval: the iteration is read from the dict"):
        mmagic.R1GradientPenaltyComps(interval=16)


# ---- path length -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "batch"),
    [({}, 8), ({"pl_batch_shrink": 2}, 4), ({"pl_batch_shrink": 2, "pl_batch_size": 3}, 3)],
)
def test_path_length_is_the_formula_in_mmagics_order(options, batch):
    mean, results = torch.tensor(0.4, dtype=torch.float64), []

    def ours(G):
        results.append(mmagic.gen_path_regularizer(G, 8, mean, weight=2.0, **options))
        return results[-1][0]

    def plain(G):
        results.append(plain_path_length(G, batch, mean))
        return 2 * results[-1][0]

    assert_same_parameters_of(ours, plain, seeded(Styled))
    for a, w in zip(results[0][1:], results[1][1:], strict=True):
        assert_near(a, w, 1e-12)


def test_the_path_length_module_keeps_its_mean():
    G = seeded(Styled)
    loss = mmagic.GeneratorPathRegularizerComps(
        2.0, interval=4, data_info={"generator": "gen", "num_batches": "batch_size"}
    )
    assert loss({"iteration": 1}) is None
    mean = torch.tensor(0.0, dtype=torch.float64)
    for seed in range(2):
        torch.manual_seed(seed)
        actual = loss({"gen": G, "batch_size": 4, "iteration": 8})
        torch.manual_seed(seed)
        wanted, mean, _ = plain_path_length(G, 4, mean)
        assert_near(actual, 2 * wanted, 1e-6)  # the buffer is float32
        assert_near(loss.state_dict()["mean_path_length"].double(), mean, 1e-6)
