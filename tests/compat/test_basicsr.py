"""The criteria and penalties of BasicSR, Real-ESRGAN and GFPGAN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from image_codebases import (
    DTYPES,
    Generator,
    Labelled,
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

from ganloss_fast.compat.basicsr import (
    GANLoss,
    MultiScaleGANLoss,
    g_path_regularize,
    gradient_penalty_loss,
    r1_penalty,
)

MODES = ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_real", [True, False])
@pytest.mark.parametrize("is_disc", [True, False])
def test_one_side_is_the_formula(mode, dtype, is_real, is_disc):
    for labels, weight in (((1.0, 0.0), 1.0), ((0.9, 0.2), np.float64(0.1))):
        loss = GANLoss(mode, *labels, loss_weight=weight)
        assert_same(
            lambda x, loss=loss: loss(x, is_real, is_disc),
            lambda x, c=(labels, float(weight)): one_sided_loss(mode, x, is_real, is_disc, *c),
            logits(2, 1, 5, 5, dtype=dtype),
        )


def test_by_default_it_is_the_generators_loss():
    loss = GANLoss("hinge", loss_weight=0.1)
    assert_same(lambda x: loss(x, True), lambda x: -0.1 * x.mean(), logits(3))


def test_a_schedule_may_change_weight_and_labels():
    loss, x = GANLoss("lsgan"), logits(2, 3)
    loss(x, True)
    loss.loss_weight, loss.real_label_val = torch.tensor(0.5), 0.75
    assert_near(loss(x, True), 0.5 * ((x - 0.75) ** 2).mean(), 1e-12)


def test_target_labels_are_tensors_where_there_are_labels():
    x = torch.zeros(2, 3)
    assert GANLoss("wgan").get_target_label(x, True) is True
    assert GANLoss("wgan_softplus").get_target_label(x, False) is False
    target = GANLoss("vanilla", real_label_val=0.9).get_target_label(x, True)
    assert torch.equal(target, torch.full((2, 3), 0.9))


def test_unknown_types_list_the_known_ones():
    for error in (NotImplementedError, ValueError):
        with pytest.raises(error, match="gan_type: expected one of vanilla, lsgan, wgan, wgan_s"):
            GANLoss("r1")


def test_a_list_is_for_the_multi_scale_criterion():
    with pytest.raises(TypeError, match="input: expected the logits of one discriminator"):
        GANLoss("wgan")([logits(2)], True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_disc", [True, False])
def test_the_multi_scale_criterion_is_the_mean_over_outputs(mode, is_disc):
    outputs = [logits(2, 1, 3, 3), [logits(2, 4, 2, 2, seed=1), logits(2, 1, 2, 2, seed=2)]]
    loss = MultiScaleGANLoss(mode, loss_weight=0.3)

    def plain(outputs):
        ends = [outputs[0], outputs[1][1]]
        return sum(one_sided_loss(mode, x, True, is_disc, weight=0.3) for x in ends) / 2

    assert_same(lambda x: loss(x, True, is_disc), plain, outputs)
    assert_same(
        lambda x: loss(x, True, is_disc),
        lambda x: one_sided_loss(mode, x, True, is_disc, weight=0.3),
        outputs[0],
    )


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        ([], ValueError, "input: expected at least one discriminator output"),
        ([[[logits(2)]]], ValueError, r"input\[0\]\[-1\]: .* one level too deep"),
        (None, TypeError, "input: expected a list of outputs.* got None"),
    ],
)
def test_wrong_nesting_says_which_level(outputs, error, message):
    with pytest.raises(error, match=message):
        MultiScaleGANLoss("lsgan")(outputs, True)


@pytest.mark.parametrize("mode", MODES)
def test_fifty_steps_train_alike(mode):
    def plain(x, is_real, is_disc):
        return one_sided_loss(mode, x, is_real, is_disc, weight=0.1)

    ours, theirs = (
        one_sided_step(criterion, for_generator=[False], for_critic=[True])
        for criterion in (GANLoss(mode, loss_weight=0.1), plain)
    )
    assert_trains_alike(ours, theirs)


# ---- penalties ---------------------------------------------------------------------------------


def test_r1_is_the_formula():
    def with_logits_of(function):
        def penalty(D):
            real = images().requires_grad_()
            return function(D(real), real)

        return penalty

    def plain(pred, real):
        (g,) = torch.autograd.grad(pred.sum(), real, create_graph=True)
        return g.pow(2).view(g.shape[0], -1).sum(1).mean()

    assert_same_parameters_of(with_logits_of(r1_penalty), with_logits_of(plain), seeded(Labelled))


def plain_gradient_penalty(D, real, fake, weight=None):
    alpha = torch.rand(real.shape[0], 1, 1, 1).to(real)
    x = (alpha * real + (1 - alpha) * fake).detach().requires_grad_()
    out = D(x)
    (g,) = torch.autograd.grad(out, x, torch.ones_like(out), create_graph=True)
    if weight is not None:
        g = g * weight
    penalty = ((g.norm(2, dim=1) - 1) ** 2).mean()
    return penalty if weight is None else penalty / weight.mean()


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_penalty_is_per_pixel(masked):
    mask = (images(5)[:, :1] > 0).double() if masked else None
    samples = images(), images(1)
    if not masked:
        samples[1].requires_grad_()  # a generator that nobody detached gets nothing
    assert_same_parameters_of(
        lambda D: gradient_penalty_loss(D, *samples, weight=mask),
        lambda D: plain_gradient_penalty(D, *samples, weight=mask),
        seeded(critic),
    )
    gradient_penalty_loss(seeded(critic), *samples).backward()
    assert samples[1].grad is None


class Styled(Generator):
    """Images from latents [B, 3, 4]."""

    def forward(self, ws):
        return super().forward(ws.sum(1)) * ws.square().mean()


def plain_path_length(images, latents, mean, decay=0.01):
    noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
    (g,) = torch.autograd.grad((images * noise).sum(), latents, create_graph=True)
    lengths = g.pow(2).sum(2).mean(1).sqrt()
    new_mean = mean + decay * (lengths.mean() - mean)
    return (lengths - new_mean).pow(2).mean(), lengths.detach(), new_mean.detach()


@pytest.mark.parametrize("mean", [0, torch.tensor(0.4, dtype=torch.float64)])
@pytest.mark.parametrize("decay", [0.01, 0.5])
def test_path_length_is_the_formula_in_basicsrs_order(mean, decay):
    def of(function):
        def penalty(net):
            ws = logits(4, 3, 4)
            results.append(function(net(ws), ws, mean, decay))
            return results[-1][0]

        return penalty

    results = []
    assert_same_parameters_of(of(g_path_regularize), of(plain_path_length), seeded(Styled))
    (_, mean_length, new_mean), (_, lengths, wanted_mean) = results
    assert_near(mean_length, lengths.mean(), 1e-12)
    assert_near(new_mean, wanted_mean, 1e-12)
    assert not any(value.requires_grad for value in (mean_length, new_mean))
