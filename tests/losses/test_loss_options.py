"""Weights, masks, reductions, labels and names of the losses, against plain PyTorch."""

from __future__ import annotations

import fractions

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ganloss_fast as gf

D = torch.float64


def logits(*shape: int, seed: int = 0, dtype: torch.dtype = D) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()


def agree(ours: Tensor, plain: Tensor, *inputs: Tensor) -> None:
    """Value and gradients."""
    torch.testing.assert_close(ours, plain.to(ours.dtype))
    for a, b in zip(
        torch.autograd.grad(ours, inputs, retain_graph=True, allow_unused=True),
        torch.autograd.grad(plain, inputs, retain_graph=True, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


PLAIN = {  # loss: (real term, fake term, generator term), element by element
    "bce": (lambda r: F.softplus(-r), F.softplus, lambda f: F.softplus(-f)),
    "hinge": (lambda r: F.relu(1 - r), lambda f: F.relu(1 + f), lambda f: -f),
    "least_squares": (lambda r: (r - 1) ** 2, lambda f: f**2, lambda f: (f - 1) ** 2),
    "wasserstein": (lambda r: -r, lambda f: f, lambda f: -f),
    gf.BCE(real_label=0.9): (
        lambda r: 0.9 * F.softplus(-r) + 0.1 * F.softplus(r),
        F.softplus,
        lambda f: F.softplus(-f),
    ),
    gf.Wasserstein(drift=0.1): (lambda r: 0.1 * r**2 - r, lambda f: f, lambda f: -f),
}
losses = pytest.mark.parametrize(("loss", "plain"), PLAIN.items(), ids=lambda x: str(x)[:24])


# ---- weights -----------------------------------------------------------------------------------


@losses
@pytest.mark.parametrize("weight", [0.1, 3, torch.tensor(0.7), torch.tensor(0.7, dtype=D)])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_generators_weight_multiplies_its_loss(loss, plain, weight, reduction):
    outputs = [logits(6, 1), logits(2, 3, seed=1)]
    expected = torch.stack([plain[2](f).mean() for f in outputs])
    expected = float(weight) * (expected.sum() if reduction == "sum" else expected.mean())
    options = {"weight": weight, "output_reduction": reduction}
    agree(gf.generator_loss(outputs, loss, **options), expected, *outputs)
    agree(gf.generator_loss_details(outputs, loss, **options).total, expected, *outputs)


@pytest.mark.parametrize("relativistic", ["paired", "average"])
def test_a_weighted_relativistic_generator_loss(relativistic):
    f, r = logits(6, 1), logits(6, 1, seed=1).detach()
    loss = gf.Hinge(relativistic=relativistic)
    if relativistic == "paired":
        expected = F.relu(1 - (f - r)).mean()
    else:
        expected = F.relu(1 - (f - r.mean())).mean() + F.relu(1 + (r - f.mean())).mean()
    for weight in (0.25, torch.tensor(0.25)):
        agree(gf.generator_loss(f, loss, real=r, weight=weight), 0.25 * expected, f)
        details = gf.generator_loss_details(f, loss, real=r, weight=weight)
        agree(details.total, 0.25 * expected, f)


def test_a_tensor_weight_learns():
    f, w = logits(6, 1), torch.tensor(2.0, dtype=D, requires_grad=True)
    gf.generator_loss(f, "wasserstein", weight=w).backward()
    torch.testing.assert_close(w.grad, -f.detach().mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_float64_weight_does_not_widen_a_loss(dtype):
    w, x = torch.tensor(0.5, dtype=D), logits(6, 1, dtype=torch.float32).to(dtype)
    critic = torch.nn.Linear(1, 1)
    maps = [x.detach().clone().requires_grad_()]
    results = {
        "discriminator": gf.discriminator_loss(x, x, "hinge", real_weight=w),
        "generator": gf.generator_loss(x, "hinge", weight=w),
        "matching": gf.feature_matching_loss([x.detach()], maps, weight=w),
        "penalty": gf.gradient_penalty(critic, x.float(), -x.float(), weight=w),
        "composed penalty": gf.gradient_penalty(
            critic, x.float(), -x.float(), penalty=gf.WGANGP(eps=0.1), weight=w
        ),
        "approximate": gf.approximate_r1_penalty(critic, x.float(), weight=w),
    }
    assert {name: value.dtype for name, value in results.items()} == dict.fromkeys(
        results, torch.float32
    )


# ---- reductions --------------------------------------------------------------------------------


@losses
def test_no_reduction_gives_the_elements_losses(loss, plain):
    r, f = logits(4, 3), logits(2, 5, seed=1)
    real, fake = gf.discriminator_loss(r, f, loss, reduction="none", real_weight=0.5)
    assert real.shape == r.shape
    torch.testing.assert_close(real, 0.5 * plain[0](r))
    torch.testing.assert_close(fake, plain[1](f))
    torch.testing.assert_close(gf.generator_loss(f, loss, reduction="none"), plain[2](f))
    listed = gf.generator_loss([f, r], loss, reduction="none", weight=torch.tensor(2.0))
    assert [t.shape for t in listed] == [f.shape, r.shape]
    agree(listed[1].square().sum(), (2 * plain[2](r)).square().sum(), r)


@losses
@pytest.mark.parametrize("output_reduction", ["sum", "mean"])
def test_the_sum_over_elements(loss, plain, output_reduction):
    r, f = [logits(4, 3), logits(2, seed=1)], [logits(5, seed=2), logits(3, 3, seed=3)]
    expected = torch.stack([plain[0](a).sum() + 2 * plain[1](b).sum() for a, b in zip(r, f)])
    expected = expected.sum() if output_reduction == "sum" else expected.mean()
    options = {"reduction": "sum", "output_reduction": output_reduction, "fake_weight": 2.0}
    agree(gf.discriminator_loss(r, f, loss, **options), expected, *r, *f)


def test_the_sum_over_an_empty_output_is_zero():
    empty, f = logits(0, 3), logits(4)
    total = gf.discriminator_loss([empty, f], [f, f], "bce", reduction="sum")
    agree(total, 2 * F.softplus(f).sum() + F.softplus(-f).sum(), f)
    assert torch.equal(
        torch.autograd.grad(gf.generator_loss(empty, "bce", reduction="sum"), empty)[0],
        torch.zeros(0, 3, dtype=D),
    )


def test_elements_of_relativistic_losses():
    r, f = logits(4, 1), logits(4, 1, seed=1)
    paired = gf.discriminator_loss(r, f, gf.BCE(relativistic="paired"), reduction="none")
    torch.testing.assert_close(paired, F.softplus(f - r))
    average = gf.BCE(relativistic="average")
    expected = F.softplus(-(r - f.mean())), F.softplus(f - r.mean())
    for ours, plain in zip(
        gf.discriminator_loss(r, f, average, reduction="none"), expected, strict=True
    ):
        torch.testing.assert_close(ours, plain)


def test_elements_can_be_differentiated_twice():
    f = logits(5)
    assert torch.autograd.gradgradcheck(lambda f: gf.generator_loss(f, "bce", reduction="none"), f)


# ---- masks -------------------------------------------------------------------------------------


@losses
@pytest.mark.parametrize("kind", [torch.bool, torch.float32, D])
@pytest.mark.parametrize("normalize", [False, True])
def test_masks_weigh_the_elements(loss, plain, kind, normalize):
    r, f = logits(4, 1, 3, 3), logits(4, 1, 3, 3, seed=1)
    row = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(4, 1, 1, 1)  # one value for each sample
    full = (logits(4, 1, 3, 3, seed=2) > 0).to(kind)
    row = row.to(kind)

    def term(values: Tensor, mask: Tensor) -> Tensor:
        mask = mask.to(D).expand(values.shape)
        total = (mask * values).mean()
        return total / mask.mean() if normalize else total

    expected = term(plain[0](r), row) + term(plain[1](f), full)
    options = {"real_mask": row, "fake_mask": full, "normalize_by_mask": normalize}
    agree(gf.discriminator_loss(r, f, loss, **options), expected, r, f)
    agree(gf.discriminator_loss_details(r, f, loss, **options).total, expected, r, f)
    options = {"mask": full, "normalize_by_mask": normalize, "weight": 0.1}
    agree(gf.generator_loss(f, loss, **options), 0.1 * term(plain[2](f), full), f)


@pytest.mark.parametrize("loss", ["bce", "hinge", "least_squares", "wasserstein"])
def test_what_is_masked_may_be_infinite(loss):
    """A token critic fills the logits of padding with -inf."""
    keep = torch.tensor([True, False, True])
    f = torch.tensor([0.3, -torch.inf, -0.7], dtype=D, requires_grad=True)
    ours = gf.generator_loss(f, loss, mask=keep, normalize_by_mask=True)
    kept = f.detach()[keep].requires_grad_()
    plain = PLAIN[loss][2](kept).mean()
    torch.testing.assert_close(ours, plain)
    ours.backward()
    expected = torch.zeros(3, dtype=D)
    expected[keep] = torch.autograd.grad(plain, kept)[0]
    torch.testing.assert_close(f.grad, expected)
    elements = gf.generator_loss(f.detach(), loss, mask=keep, reduction="none")
    assert elements.isfinite().all()


def test_a_mask_for_each_output_or_for_none():
    f = [logits(4, 2), logits(4, 1, seed=1)]
    mask = torch.tensor([[1.0], [0.0], [1.0], [0.5]], dtype=D)
    expected = (mask * F.softplus(-f[0])).mean() + F.softplus(-f[1]).mean()
    agree(gf.generator_loss(f, "bce", mask=[mask, None]), expected, *f)
    both = (mask * F.softplus(-f[0])).mean() + (mask * F.softplus(-f[1])).mean()
    agree(gf.generator_loss(f, "bce", mask=mask), both, *f)


def test_a_mask_joins_a_label_map():
    r, labels = logits(4, 2), torch.rand(4, 2, dtype=D)
    mask = torch.tensor([[1.0, 0.0]], dtype=D)
    plain = (mask * (labels * F.softplus(-r) + (1 - labels) * F.softplus(r))).mean()
    loss = gf.BCE(real_label=labels)
    ours = gf.discriminator_side_loss(r, True, loss, mask=mask)
    agree(ours, plain, r)


# ---- one side ----------------------------------------------------------------------------------


@losses
def test_one_side_of_the_discriminator_loss(loss, plain):
    x = logits(4, 3)
    for is_real, term in ((True, plain[0]), (False, plain[1])):
        agree(gf.discriminator_side_loss(x, is_real, loss), term(x).mean(), x)
        weighted = gf.discriminator_side_loss([x, x], is_real, loss, weight=torch.tensor(0.5))
        agree(weighted, term(x).mean(), x)
        elements = gf.discriminator_side_loss(x, is_real, loss, reduction="none", weight=2)
        torch.testing.assert_close(elements, 2 * term(x))


# ---- relativistic means ------------------------------------------------------------------------


def test_detached_means_are_esrgans():
    """Its discriminator backpropagates each half with the other side's mean detached; its
    generator keeps the gradient through the mean of its own logits."""
    r, f = logits(16, 1), logits(16, 1, seed=1)
    bce = F.binary_cross_entropy_with_logits
    loss = gf.BCE(relativistic="average", detach_means=True)

    half_real = bce(r - f.detach().mean(), torch.ones_like(r))
    half_fake = bce(f - r.detach().mean(), torch.zeros_like(f))
    ours = gf.discriminator_loss(r, f, loss, real_weight=0.5, fake_weight=0.5)
    agree(ours, 0.5 * half_real + 0.5 * half_fake, r, f)

    fixed = r.detach()
    half_real = bce(fixed - f.mean(), torch.zeros_like(r))
    half_fake = bce(f - fixed.mean(), torch.ones_like(f))
    agree(gf.generator_loss(f, loss, real=fixed, weight=0.5), (half_real + half_fake) / 2, f)


@pytest.mark.parametrize("kind", [gf.BCE, gf.Hinge, gf.LeastSquares])
def test_attached_means_carry_a_gradient(kind):
    """The option makes a difference, in every loss that has it."""
    r, f = logits(16, 1), logits(16, 1, seed=1)
    gradients = [
        torch.autograd.grad(
            gf.discriminator_loss(r, f, kind(relativistic="average", detach_means=detach)), r
        )[0]
        for detach in (False, True)
    ]
    assert not torch.allclose(*gradients)


# ---- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [gf.BCE, gf.LeastSquares])
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_labels_broadcast_to_the_logits(kind, dtype):
    r, f = logits(4, 1, 3, 3), logits(4, 1, 3, 3, seed=1)
    of_sample = torch.tensor([1.0, 0.9, 0.8, 0.7], dtype=dtype).view(4, 1, 1, 1)
    scalar = torch.tensor(0.25, dtype=dtype)

    def phi(z: Tensor, t: Tensor) -> Tensor:
        t = t.to(D)
        if kind is gf.LeastSquares:
            return ((z - t) ** 2).mean()
        return (t * F.softplus(-z) + (1 - t) * F.softplus(z)).mean()

    loss = kind(real_label=of_sample, fake_label=scalar)
    agree(gf.discriminator_loss(r, f, loss), phi(r, of_sample) + phi(f, scalar), r, f)
    both = gf.discriminator_loss([r, f], [f, r], loss)  # one label for a list
    agree(both, sum(phi(z, t) for z in (r, f) for t in (of_sample, scalar)), r, f)


# ---- names and numbers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("lsgan", "least_squares"),
        ("LSGAN", "least_squares"),
        ("least-squares", "least_squares"),
        ("mse", "least_squares"),
        ("vanilla", "bce"),
        ("logistic", "bce"),
        ("nonsaturating", "bce"),
        ("Non-Saturating", "bce"),
        ("wgan", "wasserstein"),
        ("Hinge", "hinge"),
    ],
)
def test_common_names_are_understood(name, ours):
    f = logits(5)
    assert torch.equal(gf.generator_loss(f, name), gf.generator_loss(f, ours))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("wgangp", "gradient_penalty"),
        ("wgan-gp", "gradient_penalty"),
        ("WGAN_GP", "gradient_penalty"),
        ("minimax", "saturating=True"),
        ("ragan", 'relativistic="average"'),
        ("hingee", "Did you mean hinge?"),
        ("x" * 1000, "bce, hinge, least_squares, wasserstein"),
    ],
)
def test_other_names_are_explained(name, advice):
    with pytest.raises(ValueError, match=r"^loss: ") as error:
        gf.generator_loss(torch.zeros(2), name)
    assert advice in str(error.value)
    assert len(str(error.value)) < 300


class _LooksLikeANumber(fractions.Fraction):
    pass


NUMBERS = [np.float32(2), np.float64(2), np.int64(2), fractions.Fraction(2), _LooksLikeANumber(2)]


@pytest.mark.parametrize("two", NUMBERS, ids=lambda number: type(number).__name__)
def test_a_number_is_a_number(two):
    critic, x = torch.nn.Linear(3, 1).double(), torch.randn(4, 3, dtype=D)
    f = logits(4, 3)

    def results(two) -> list[Tensor]:
        torch.manual_seed(0)
        pairs = gf.discriminator_loss(f, -f, "hinge", real_weight=two, fake_weight=two)
        labels = gf.discriminator_loss(f, -f, gf.BCE(real_label=two, fake_label=two))
        dragan = gf.AroundReal(scale=two, clamp=(-two, two))
        latents = logits(4, 2)
        images = (latents @ torch.ones(2, 3, dtype=D)).view(4, 1, 3)
        return [
            pairs,
            labels,
            gf.generator_loss(f, gf.Hinge(margin=two, generator_form="hinge"), weight=two),
            gf.generator_loss(f, gf.LeastSquares(generator_label=two)),
            gf.discriminator_loss(f, -f, gf.Wasserstein(drift=two)),
            gf.feature_matching_loss([f.detach()], [-f], weight=two),
            gf.r1_penalty(critic, x, weight=two),
            gf.gradient_penalty(
                critic, x, -x, penalty=gf.WGANGP(target=two, power=two, eps=two), weight=two
            ),
            gf.gradient_penalty(
                critic, x, -x, penalty=gf.WGANGP(target=two, one_sided=True), weight=two, alpha=two
            ),
            gf.gradient_penalty(gf.Call(critic, output_weights=[two]), x, at=dragan),
            gf.approximate_r1_penalty(critic, x, two, weight=two),
            gf.perturb(x, two, torch.tensor(3)),
            gf.path_length_penalty(
                images, latents, torch.tensor(0.0, dtype=D), weight=two, decay=two
            ).penalty,
        ]

    for ours, plain in zip(results(two), results(2.0), strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("two", [np.int64(2), np.int32(2), np.uint8(2)])
def test_an_integer_is_an_integer(two):
    critic, x = torch.nn.Linear(3, 1), torch.randn(4, 3)
    assert gf.LazyRegularizer(two) == gf.LazyRegularizer(2)
    parts = gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=two))
    torch.testing.assert_close(parts, gf.r1_penalty(critic, x))


@pytest.mark.parametrize("not_a_number", [True, "2", None, 2j, np.array([2.0]), [2.0]])
def test_other_things_are_no_numbers(not_a_number):
    for call in (
        lambda: gf.generator_loss(torch.zeros(2), "bce", weight=not_a_number),
        lambda: gf.BCE(real_label=not_a_number),
        lambda: gf.LazyRegularizer(not_a_number),
    ):
        with pytest.raises(TypeError, match="expected a"):
            call()
