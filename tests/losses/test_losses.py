"""The adversarial losses against their formulas, written plainly in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import reference
import torch
from oracle import DTYPES, assert_close, bce, compute_epsilon, draw, softplus
from torch import Tensor

import ganloss_fast as gf

pytestmark = pytest.mark.every_implementation

relu = torch.relu
MAP = torch.rand(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


class Formula(NamedTuple):
    """A loss of the table: its real, fake and generator terms."""

    loss: object
    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


FORMULAS = {
    "bce": Formula("bce", lambda r: softplus(-r), lambda f: softplus(f), lambda f: softplus(-f)),
    "bce with labels": Formula(
        gf.BCE(real_label=0.9, fake_label=0.1, generator_label=1.2),
        lambda r: bce(r, 0.9),
        lambda f: bce(f, 0.1),
        lambda f: bce(f, 1.2),
    ),
    "bce with label maps": Formula(
        gf.BCE(real_label=MAP, fake_label=1 - MAP, generator_label=MAP / 2),
        lambda r: bce(r, MAP),
        lambda f: bce(f, 1 - MAP),
        lambda f: bce(f, MAP / 2),
    ),
    "saturating bce": Formula(
        gf.BCE(saturating=True), lambda r: bce(r, 1), lambda f: bce(f, 0), lambda f: -bce(f, 0)
    ),
    "saturating bce with labels": Formula(
        gf.BCE(real_label=0.9, fake_label=0.2, saturating=True),
        lambda r: bce(r, 0.9),
        lambda f: bce(f, 0.2),
        lambda f: -bce(f, 0.2),
    ),
    "hinge": Formula("hinge", lambda r: relu(1 - r), lambda f: relu(1 + f), lambda f: -f),
    "hinge with margin": Formula(
        gf.Hinge(margin=0.3), lambda r: relu(0.3 - r), lambda f: relu(0.3 + f), lambda f: -f
    ),
    "hinge for the generator": Formula(
        gf.Hinge(margin=2, generator_form="hinge"),
        lambda r: relu(2 - r),
        lambda f: relu(2 + f),
        lambda f: relu(2 - f),
    ),
    "least squares": Formula(
        "least_squares", lambda r: (r - 1) ** 2, lambda f: f**2, lambda f: (f - 1) ** 2
    ),
    "least squares -1, 1, 0": Formula(
        gf.LeastSquares(real_label=1, fake_label=-1, generator_label=0),
        lambda r: (r - 1) ** 2,
        lambda f: (f + 1) ** 2,
        lambda f: f**2,
    ),
    "least squares with label maps": Formula(
        gf.LeastSquares(real_label=MAP, fake_label=-MAP, generator_label=2 * MAP),
        lambda r: (r - MAP) ** 2,
        lambda f: (f + MAP) ** 2,
        lambda f: (f - 2 * MAP) ** 2,
    ),
    "wasserstein": Formula("wasserstein", lambda r: -r, lambda f: f, lambda f: -f),
    "wasserstein with drift": Formula(
        gf.Wasserstein(drift=0.01), lambda r: 0.01 * r**2 - r, lambda f: f, lambda f: -f
    ),
}

# phi(z) of the relativistic losses, which look at differences of logits.
RELATIVISTIC = {
    gf.BCE: lambda z: softplus(-z),
    gf.Hinge: lambda z: relu(1 - z),
    gf.LeastSquares: lambda z: (z - 1) ** 2,
}

PUBLIC = {"package": gf, "reference": reference}


@pytest.fixture(params=PUBLIC)
def public(request):
    """The package, and its written specification: the same names and signatures."""
    return PUBLIC[request.param]


def logits(dtype: torch.dtype = torch.float64, *shape: int) -> tuple[Tensor, Tensor]:
    """Real and fake ones; apart, so that their Wasserstein distance is not all rounding."""
    real, fake = (draw(*(shape or (6, 5)), dtype=dtype) for _ in range(2))
    return (real + 1).requires_grad_(), (fake - 1).requires_grad_()


def assert_same(actual: Tensor, truth: Tensor, *inputs: Tensor, tolerance: float = 1e-13) -> None:
    """The same value and the same gradients."""
    assert actual.dim() == 0
    assert_close(actual, truth, tolerance)
    gradients = (torch.autograd.grad(x, inputs, materialize_grads=True) for x in (actual, truth))
    for gradient, expected in zip(*gradients):
        assert_close(gradient, expected, tolerance)


# ---- the formulas ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMULAS)
def test_discriminator_loss_is_the_mean_real_term_plus_the_mean_fake_term(public, name):
    loss, real, fake, _ = FORMULAS[name]
    r, f = logits()
    assert_same(public.discriminator_loss(r, f, loss), real(r).mean() + fake(f).mean(), r, f)


@pytest.mark.parametrize("name", FORMULAS)
def test_generator_loss_is_the_mean_generator_term(public, name):
    _, f = logits()
    loss, *_, generator = FORMULAS[name]
    assert_same(public.generator_loss(f, loss), generator(f).mean(), f)


@pytest.mark.parametrize("name", FORMULAS)
def test_weights_multiply_the_terms(public, name):
    loss, real, fake, _ = FORMULAS[name]
    r, f = logits()
    actual = public.discriminator_loss(r, f, loss, real_weight=0.3, fake_weight=-2)
    assert_same(actual, 0.3 * real(r).mean() - 2 * fake(f).mean(), r, f)


@pytest.mark.parametrize("name", FORMULAS)
def test_weights_may_be_0d_tensors_that_learn(public, name):
    loss, real, fake, _ = FORMULAS[name]
    r, f = logits()
    weight = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    actual = public.discriminator_loss(r, f, loss, real_weight=weight, fake_weight=weight**2)
    truth = weight * real(r).mean() + weight**2 * fake(f).mean()
    assert_same(actual, truth, r, f, weight)


@pytest.mark.parametrize("loss", RELATIVISTIC, ids=lambda loss: loss.__name__)
def test_paired_relativistic_losses_compare_logit_with_logit(public, loss):
    phi, paired = RELATIVISTIC[loss], loss(relativistic="paired")
    r, f = logits()
    assert_same(public.discriminator_loss(r, f, paired), phi(r - f).mean(), r, f)
    assert_same(public.generator_loss(f, paired, real=r), phi(f - r).mean(), r, f)


@pytest.mark.parametrize("loss", RELATIVISTIC, ids=lambda loss: loss.__name__)
def test_average_relativistic_losses_compare_with_the_mean_of_the_other_side(public, loss):
    phi, average = RELATIVISTIC[loss], loss(relativistic="average")
    r, f = logits()
    truth = phi(r - f.mean()).mean() + phi(-(f - r.mean())).mean()
    assert_same(public.discriminator_loss(r, f, average), truth, r, f)
    truth = phi(f - r.mean()).mean() + phi(-(r - f.mean())).mean()
    assert_same(public.generator_loss(f, average, real=r), truth, r, f)


@pytest.mark.parametrize("loss", RELATIVISTIC, ids=lambda loss: loss.__name__)
def test_average_relativistic_losses_take_weights(public, loss):
    phi, average = RELATIVISTIC[loss], loss(relativistic="average")
    r, f = logits()
    truth = 0.4 * phi(r - f.mean()).mean() + 3 * phi(-(f - r.mean())).mean()
    actual = public.discriminator_loss(r, f, average, real_weight=0.4, fake_weight=3)
    assert_same(actual, truth, r, f)


def test_average_relativistic_sides_may_differ_in_shape(public):
    r, _ = logits()
    f = draw(3, 2, dtype=torch.float64).requires_grad_()
    truth = softplus(-(r - f.mean())).mean() + softplus(f - r.mean()).mean()
    average = gf.BCE(relativistic="average")
    assert_same(public.discriminator_loss(r, f, average), truth, r, f)


@pytest.mark.parametrize("name", FORMULAS)
def test_discriminator_loss_has_a_second_order(public, name):
    """As a penalty on the gradient of the loss needs it."""
    loss, real, fake, _ = FORMULAS[name]
    r, f = logits()

    def penalty(total):
        (g,) = torch.autograd.grad(total, r, create_graph=True)
        return g.square().sum() + total

    assert_same(
        penalty(public.discriminator_loss(r, f, loss)),
        penalty(real(r).mean() + fake(f).mean()),
        r,
        f,
    )


# ---- one formula by several names --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("bce", gf.BCE()),
        ("hinge", gf.Hinge()),
        ("least_squares", gf.LeastSquares()),
        ("wasserstein", gf.Wasserstein()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_name_stands_for_the_loss_with_its_defaults(name, loss):
    r, f = logits()
    for argument in (name, loss):
        assert torch.equal(gf.discriminator_loss(r, f, argument), gf.discriminator_loss(r, f, loss))
        assert torch.equal(gf.generator_loss(f, argument), gf.generator_loss(f, loss))


def test_losses_are_frozen_and_compare_by_value():
    assert gf.BCE(real_label=0.9) == gf.BCE(real_label=0.9)
    assert len({gf.Hinge(), gf.Hinge(), gf.Hinge(margin=2)}) == 2
    with pytest.raises(AttributeError):
        gf.Hinge().margin = 2.0


# ---- dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_every_dtype_is_computed_in_float32_or_better(implementation, name, dtype):
    loss, real, fake, _ = FORMULAS[name]
    r, f = logits(dtype)
    actual = gf.discriminator_loss(r, f, loss)
    truth = real(r.double()).mean() + fake(f.double()).mean()
    assert_close(actual, truth, 8 * compute_epsilon(dtype))
    assert {g.dtype for g in torch.autograd.grad(actual, (r, f))} == {dtype}


@pytest.mark.parametrize("loss", [gf.BCE, gf.LeastSquares], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("label_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_label_maps_may_have_another_dtype(implementation, dtype, label_dtype, loss):
    """They are never rounded to that of the logits, and leave the dtype of the loss alone."""
    label = MAP.to(label_dtype)
    r, f = logits(dtype)
    actual = gf.discriminator_loss(r, f, loss(real_label=label))
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    real = bce(r.double(), label.double()) if loss is gf.BCE else (r - label.double()) ** 2
    fake = softplus(f.double()) if loss is gf.BCE else f.double() ** 2
    assert_close(actual, real.mean() + fake.mean(), 8 * compute_epsilon(dtype))


def test_a_float64_output_makes_the_whole_loss_float64():
    loss = gf.discriminator_loss([draw(2), draw(2).double()], [draw(2), draw(2)], "hinge")
    assert loss.dtype == torch.float64


# ---- many outputs ------------------------------------------------------------------------------

SHAPES = ((4, 1), (4, 1, 7, 7), (), (0,), (3, 5))


def outputs(shapes=SHAPES[:3] + SHAPES[4:]) -> tuple[list[Tensor], list[Tensor]]:
    pairs = [logits(torch.float64, *shape) if shape else scalars() for shape in shapes]
    return [r for r, _ in pairs], [f for _, f in pairs]


def scalars() -> tuple[Tensor, Tensor]:
    return tuple(draw(dtype=torch.float64).requires_grad_() for _ in range(2))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", ["bce", gf.LeastSquares(relativistic="average")], ids=str)
def test_outputs_are_summed_or_averaged(public, loss, reduction):
    reals, fakes = outputs()
    one_by_one = [public.discriminator_loss(r, f, loss) for r, f in zip(reals, fakes)]
    truth = sum(one_by_one) / (len(reals) if reduction == "mean" else 1)
    actual = public.discriminator_loss(reals, fakes, loss, output_reduction=reduction)
    assert_same(actual, truth, *reals, *fakes)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", ["hinge", gf.Hinge(relativistic="paired")], ids=str)
def test_generator_outputs_are_summed_or_averaged(public, loss, reduction):
    reals, fakes = outputs()
    given = (lambda r: {"real": r}) if isinstance(loss, gf.Hinge) else (lambda r: {})
    one_by_one = [public.generator_loss(f, loss, **given(r)) for r, f in zip(reals, fakes)]
    truth = sum(one_by_one) / (len(fakes) if reduction == "mean" else 1)
    actual = public.generator_loss(fakes, loss, output_reduction=reduction, **given(reals))
    assert_same(actual, truth, *reals, *fakes)


def test_a_tuple_serves_as_a_list_does():
    reals, fakes = outputs()
    assert torch.equal(
        gf.discriminator_loss(tuple(reals), tuple(fakes), "bce"),
        gf.discriminator_loss(reals, fakes, "bce"),
    )


def test_real_and_fake_may_differ_in_shape(public):
    r, f = draw(4, 1, dtype=torch.float64), draw(9, dtype=torch.float64)
    truth = relu(1 - r).mean() + relu(1 + f).mean()
    assert_close(public.discriminator_loss(r, f, "hinge"), truth, 1e-14)


def test_an_empty_output_gives_nan_as_torch_mean_does(implementation):
    assert gf.discriminator_loss(draw(0), draw(3), "hinge").isnan()
    assert gf.generator_loss(draw(0, 3), "bce").isnan()


# ---- details -----------------------------------------------------------------------------------

EVERY_LOSS = [formula.loss for formula in FORMULAS.values()] + [
    loss(relativistic=how) for loss in RELATIVISTIC for how in ("paired", "average")
]


def every_loss(loss: object) -> str:
    names = {id(formula.loss): name for name, formula in FORMULAS.items()}
    return names.get(id(loss)) or f"{loss.relativistic} {loss.name}"


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", EVERY_LOSS, ids=every_loss)
def test_details_total_is_the_loss(implementation, loss, reduction):
    r, f = logits()
    r2, f2 = logits()
    given = {"output_reduction": reduction}
    details = gf.discriminator_loss_details([r, r2], [f, f2], loss, **given)
    truth = gf.discriminator_loss([r, r2], [f, f2], loss, **given)
    assert_same(details.total, truth, r, f, r2, f2)
    if getattr(loss, "relativistic", None):
        given["real"] = [r, r2]
    details = gf.generator_loss_details([f, f2], loss, **given)
    assert_same(details.total, gf.generator_loss([f, f2], loss, **given), r, f, r2, f2)


@pytest.mark.parametrize("name", FORMULAS)
def test_details_give_the_unweighted_terms_of_every_output(implementation, name):
    loss, real, fake, _ = FORMULAS[name]
    r, f = logits()
    r2, f2 = logits()
    weights = {"real_weight": 0.25, "fake_weight": torch.tensor(3.0, dtype=torch.float64)}
    details = gf.discriminator_loss_details([r, r2], [f, f2], loss, **weights)
    reals = torch.stack([real(r).mean(), real(r2).mean()])
    fakes = torch.stack([fake(f).mean(), fake(f2).mean()])
    assert_close(details.real, reals, 1e-13)
    assert_close(details.fake, fakes, 1e-13)
    assert_close(details.per_output, 0.25 * reals + 3 * fakes, 1e-13)


def test_details_of_a_part_are_differentiable(implementation):
    r, f = logits()
    details = gf.discriminator_loss_details(r, f, "bce")
    assert_same(details.real.sum(), softplus(-r).mean(), r, f)


def test_a_paired_loss_has_no_separate_terms(implementation):
    details = gf.discriminator_loss_details(*logits(), gf.Hinge(relativistic="paired"))
    assert details.real is None
    assert details.fake is None
    assert details.per_output.shape == (1,)


def test_generator_details_have_a_real_term_only_where_the_loss_has_one(implementation):
    r, f = logits()
    assert gf.generator_loss_details(f, "hinge").real is None
    average = gf.generator_loss_details(f, gf.BCE(relativistic="average"), real=r)
    assert_close(average.real[0], softplus(r - f.mean()).mean(), 1e-13)


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=every_loss)
def test_details_give_detached_statistics_of_the_logits(implementation, loss):
    pairs = [logits() for _ in range(3)]
    reals, fakes = [r for r, _ in pairs], [f for _, f in pairs]
    stats = gf.discriminator_loss_details(reals, fakes, loss).stats
    for side, given in ((stats.real, reals), (stats.fake, fakes)):
        truth = {
            "mean": [t.mean() for t in given],
            "standard_deviation": [t.std(correction=0) for t in given],
            "sign": [t.sign().mean() for t in given],
            "nonfinite": [t.new_zeros(()) for t in given],
        }
        for name, rows in truth.items():
            actual = getattr(side, name)
            assert not actual.requires_grad
            torch.testing.assert_close(actual, torch.stack(rows).detach())


def test_generator_statistics_are_none_for_a_side_that_was_not_given():
    stats = gf.generator_loss_details(draw(3), "hinge").stats
    assert stats.real is None
    assert stats.fake is not None


# ---- modules -----------------------------------------------------------------------------------


def test_the_modules_are_the_functions():
    r, f = logits()
    options = {"real_weight": 0.5, "output_reduction": "mean"}
    module = gf.DiscriminatorLoss(gf.Hinge(margin=2), **options)
    assert torch.equal(module(r, f), gf.discriminator_loss(r, f, gf.Hinge(margin=2), **options))
    assert torch.equal(gf.GeneratorLoss("bce")(f), gf.generator_loss(f, "bce"))
    paired = gf.BCE(relativistic="paired")
    assert torch.equal(gf.GeneratorLoss(paired)(f, r), gf.generator_loss(f, paired, real=r))
    matching = gf.FeatureMatchingLoss(criterion="mse")
    assert torch.equal(matching([r], [f]), gf.feature_matching_loss([r], [f], criterion="mse"))
    penalty = gf.GradientPenalty(weight=2.0)
    alpha = torch.rand(6, dtype=torch.float64)
    assert torch.equal(
        penalty(torch.sin, r, f, alpha=alpha),
        gf.gradient_penalty(torch.sin, r, f, weight=2.0, alpha=alpha),
    )


def test_the_modules_show_their_options():
    assert "margin=2.0" in repr(gf.DiscriminatorLoss(gf.Hinge(margin=2.0)))
    assert "criterion='mse'" in repr(gf.FeatureMatchingLoss(criterion="mse"))


def test_an_unknown_loss_is_refused_when_the_module_is_made():
    with pytest.raises(ValueError, match=r"^loss:"):
        gf.DiscriminatorLoss("hindge")
