"""The criterion and the penalty of CycleGAN, pix2pix and CUT."""

from __future__ import annotations

import copy

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
    one_sided_step,
    seeded,
)
from torch.nn import functional as F

from ganloss_fast.compat import cut, cyclegan


def plain_criterion(mode, real_label=1.0, fake_label=0.0):
    def criterion(prediction, target_is_real):
        target = torch.tensor(real_label if target_is_real else fake_label)
        target = target.expand_as(prediction)
        if mode == "lsgan":
            return F.mse_loss(prediction, target.to(prediction.dtype))
        if mode == "vanilla":
            return F.binary_cross_entropy_with_logits(prediction, target.to(prediction.dtype))
        if mode == "wgangp":
            return -prediction.mean() if target_is_real else prediction.mean()
        z = -prediction if target_is_real else prediction
        return F.softplus(z, threshold=40).view(prediction.size(0), -1).mean(1)

    return criterion


CLASSES = {
    **{f"cyclegan-{mode}": (cyclegan.GANLoss, mode) for mode in ("lsgan", "vanilla", "wgangp")},
    **{f"cut-{mode}": (cut.GANLoss, mode) for mode in ("lsgan", "wgangp", "nonsaturating")},
}


@pytest.mark.parametrize("shape", [(1, 1, 6, 6), (3, 1, 12, 12), (4, 1), (5,)])
@pytest.mark.parametrize("target_is_real", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("cls", "mode"), CLASSES.values(), ids=CLASSES)
def test_one_side_is_the_formula(cls, mode, dtype, target_is_real, shape):
    assert_same(
        lambda x: cls(mode)(x, target_is_real),
        lambda x: plain_criterion(mode)(x, target_is_real),
        logits(*shape, dtype=dtype),
    )


@pytest.mark.parametrize("mode", ["lsgan", "vanilla"])
def test_labels_are_used(mode):
    for target_is_real in (True, False):
        assert_same(
            lambda x, t=target_is_real: cyclegan.GANLoss(mode, 0.9, 0.2)(x, t),
            lambda x, t=target_is_real: plain_criterion(mode, 0.9, 0.2)(x, t),
            logits(2, 1, 3, 3),
        )


def test_nonsaturating_gives_a_value_for_each_sample():
    loss = cut.GANLoss("nonsaturating")
    assert [loss(logits(b, 1, 12, 12), True).shape for b in (1, 3)] == [(1,), (3,)]
    with pytest.raises(ValueError, match=r"prediction: expected shape \[B, ...\]"):
        loss(logits(), True)


@pytest.mark.parametrize("cls", [cyclegan.GANLoss, cut.GANLoss])
def test_the_buffers_of_a_checkpoint_are_the_labels(cls):
    loss = cls("lsgan")
    assert {name: value.item() for name, value in loss.state_dict().items()} == {
        "real_label": 1.0,
        "fake_label": 0.0,
    }
    x = logits(2, 3)
    assert_near(loss(x, True), ((x - 1) ** 2).mean(), 1e-12)
    loss.load_state_dict({"real_label": torch.tensor(0.5), "fake_label": torch.tensor(0.25)})
    assert_near(loss(x, True), ((x - 0.5) ** 2).mean(), 1e-12)
    assert_near(copy.deepcopy(loss)(x, False), ((x - 0.25) ** 2).mean(), 1e-12)


def test_labels_changed_in_place_or_replaced_count():
    loss, x = cyclegan.GANLoss("lsgan"), logits(2, 3)
    loss(x, True)
    loss.real_label.fill_(0.5)
    assert_near(loss(x, True), ((x - 0.5) ** 2).mean(), 1e-12)
    loss.real_label = torch.tensor(0.75)
    assert_near(loss(x, True), ((x - 0.75) ** 2).mean(), 1e-12)
    with torch.no_grad():
        loss.get_buffer("real_label").copy_(torch.tensor(0.25))
    assert_near(loss(x, True), ((x - 0.25) ** 2).mean(), 1e-12)
    loss.double()
    assert_near(loss(x, True), ((x - 0.25) ** 2).mean(), 1e-12)


def test_what_the_docstring_says_of_writes_that_leave_no_trace():
    """They are not seen, and the way that is named in their place is."""
    loss, x = cyclegan.GANLoss("lsgan"), logits(2, 3)
    loss(x, True)
    loss.real_label.data.fill_(0.5)
    assert_near(loss(x, True), ((x - 1.0) ** 2).mean(), 1e-12)
    loss.real_label.fill_(0.5)
    assert_near(loss(x, True), ((x - 0.5) ** 2).mean(), 1e-12)


def test_the_target_tensor_is_expanded():
    target = cyclegan.GANLoss("lsgan", 0.5).get_target_tensor(torch.zeros(2, 3), True)
    assert target.tolist() == [[0.5] * 3] * 2


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        ((True,), {}),
        ((), {"use_lsgan": True}),
        ((), {"tensor": torch.FloatTensor}),
        ((), {"target_real_label": 0.9}),
        ((True, 0.9, 0.1), {}),
        ((True,), {"target_fake_label": 0.1, "tensor": torch.FloatTensor}),
    ],
)
def test_the_older_form_is_least_squares_unless_told_otherwise(arguments, options):
    labels = (*arguments, *(1.0, 1.0, 0.0)[len(arguments) :])[1:]
    labels = (
        options.get("target_real_label", labels[0]),
        options.get("target_fake_label", labels[1]),
    )
    for target_is_real in (True, False):
        assert_same(
            lambda x, t=target_is_real: cyclegan.GANLoss(*arguments, **options)(x, t),
            lambda x, t=target_is_real: plain_criterion("lsgan", *labels)(x, t),
            logits(2, 3),
        )


def test_the_older_form_beside_a_mode_is_refused():
    for mode in ("vanilla", False):
        with pytest.raises(TypeError, match="use_lsgan: it takes the place of gan_mode, which is"):
            cyclegan.GANLoss(mode, use_lsgan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_lsgan_the_older_form_takes_probabilities(dtype):
    probabilities = torch.rand(4, 3, dtype=dtype).requires_grad_()
    loss = cyclegan.GANLoss(use_lsgan=False, target_real_label=0.75, tensor=torch.FloatTensor)
    for target_is_real, label in ((True, 0.75), (False, 0.0)):
        assert_same(
            lambda p, t=target_is_real: loss(p, t),
            lambda p, t=label: F.binary_cross_entropy(p, torch.full_like(p, t)),
            probabilities,
        )


def test_unknown_modes_list_the_known_ones():
    message = "gan_mode: expected one of lsgan, vanilla, wgangp, got 'hinge'"
    for error in (NotImplementedError, ValueError):
        with pytest.raises(error, match=message):
            cyclegan.GANLoss("hinge")
    with pytest.raises(NotImplementedError, match="Did you mean nonsaturating"):
        cut.GANLoss("nonsaturate")
    for cls in (cyclegan.GANLoss, cut.GANLoss):
        with pytest.raises(NotImplementedError, match="got None"):
            cls(None)


def test_cut_has_no_older_form():
    with pytest.raises(TypeError, match="gan_mode"):
        cut.GANLoss()
    with pytest.raises(NotImplementedError, match="got True"):
        cut.GANLoss(True)


def test_a_list_of_outputs_is_refused():
    with pytest.raises(TypeError, match="prediction: expected the logits of one discriminator"):
        cyclegan.GANLoss("lsgan")([logits(2)], True)


@pytest.mark.parametrize(("cls", "mode"), CLASSES.values(), ids=CLASSES)
def test_fifty_steps_train_alike(cls, mode):
    assert_trains_alike(one_sided_step(cls(mode), 0.5), one_sided_step(plain_criterion(mode), 0.5))


@pytest.mark.parametrize("mode", ["lsgan", "vanilla"])
def test_compiled_it_has_the_labels_of_the_checkpoint(mode):
    """Of one that is loaded before the first call, and of one after it."""
    loss = cyclegan.GANLoss(mode)
    compiled = torch.compile(lambda x: loss(x, True), fullgraph=True, backend="aot_eager")
    for label in (0.9, 0.7):
        loss.load_state_dict({"real_label": torch.tensor(label), "fake_label": torch.tensor(0.0)})
        assert_same(compiled, lambda x, t=label: plain_criterion(mode, t)(x, True), logits(2, 3))


# ---- the penalty -------------------------------------------------------------------------------


def plain_penalty(D, real, fake, type="mixed", constant=1.0, lambda_gp=10.0):
    if type == "mixed":
        alpha = torch.rand(real.shape[0], 1)
        alpha = alpha.expand(real.shape[0], real[0].numel()).reshape(real.shape)
        points = alpha * real + (1 - alpha) * fake
    else:
        points = real if type == "real" else fake
    points.requires_grad_(True)
    out = D(points)
    (g,) = torch.autograd.grad(out, points, torch.ones_like(out), create_graph=True)
    g = g.reshape(real.shape[0], -1)
    return (((g + 1e-16).norm(2, dim=1) - constant) ** 2).mean() * lambda_gp, g


@pytest.mark.parametrize("type", ["mixed", "real", "fake"])
@pytest.mark.parametrize(("constant", "lambda_gp"), [(1.0, 10.0), (0.0, 3.0), (100.0, 10.0)])
def test_the_penalty_is_the_formula(type, constant, lambda_gp):
    options = {"type": type, "constant": constant, "lambda_gp": lambda_gp}
    for part in (0, 1):
        assert_same_parameters_of(
            lambda D, k=part: (
                cyclegan.cal_gradient_penalty(D, images(), images(1), "cpu", **options)[k]
                .square()
                .sum()
            ),
            lambda D, k=part: plain_penalty(D, images(), images(1), **options)[k].square().sum(),
            seeded(critic),
        )


def test_the_penalty_reaches_a_generator_whose_samples_are_not_detached():
    D = seeded(critic)
    gradients = []
    for function in (
        lambda *a: cyclegan.cal_gradient_penalty(*a, "cpu"),
        plain_penalty,
    ):
        torch.manual_seed(0)
        scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        function(D, images(), scale * images(1))[0].backward()
        gradients.append(scale.grad)
    assert_near(*gradients, 1e-9)


@pytest.mark.parametrize(("type", "which"), [("real", 0), ("fake", 1), ("mixed", None)])
def test_the_callers_tensor_requires_grad_afterwards(type, which):
    samples = [images(), images(1)]
    cut.cal_gradient_penalty(seeded(critic), *samples, "cpu", type=type)
    assert [s.requires_grad for s in samples] == [which == k for k in range(2)]


def test_without_a_weight_there_is_no_penalty():
    result = cyclegan.cal_gradient_penalty(None, images(), images(), "cpu", lambda_gp=0.0)
    assert result == (0.0, None)


def test_an_unknown_place_lists_the_known_ones():
    with pytest.raises(NotImplementedError, match="type: expected one of real, fake, mixed"):
        cyclegan.cal_gradient_penalty(critic(), images(), images(), "cpu", type="mix")
