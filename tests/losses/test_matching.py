"""feature_matching_loss against its formula, and the generator step it serves."""

from __future__ import annotations

import itertools

import pytest
import reference
import torch
from oracle import DTYPES, assert_close, compute_epsilon, draw
from torch import Tensor, nn

import ganloss_fast as gf

pytestmark = pytest.mark.every_implementation

SHAPES = (((3, 4, 8), (3, 6, 5), (3, 1)), ((3, 2, 9), (3, 7)))  # of two discriminators
PUBLIC = {"package": gf, "reference": reference}
DISTANCES = {"l1": torch.abs, "mse": torch.square}


@pytest.fixture(params=PUBLIC)
def public(request):
    return PUBLIC[request.param]


def features(dtype: torch.dtype = torch.float64) -> list[list[Tensor]]:
    return [[draw(*s, dtype=dtype).requires_grad_() for s in shapes] for shapes in SHAPES]


def formula(
    real: list[list[Tensor]],
    fake: list[list[Tensor]],
    criterion: str = "l1",
    include_last: bool = True,
    layer_reduction: str = "sum",
    discriminator_reduction: str = "sum",
    weight: float | Tensor = 1.0,
) -> Tensor:
    total = 0.0
    for real_maps, fake_maps in zip(real, fake):
        distances = [DISTANCES[criterion](r - f).mean() for r, f in zip(real_maps, fake_maps)]
        distances = distances if include_last else distances[:-1]
        total = total + sum(distances) / (len(distances) if layer_reduction == "mean" else 1)
    return weight * total / (len(real) if discriminator_reduction == "mean" else 1)


def every_option() -> list[dict[str, object]]:
    reductions = ("sum", "mean")
    combinations = itertools.product(DISTANCES, (True, False), reductions, reductions, (1.0, 45.0))
    names = (
        "criterion",
        "include_last",
        "layer_reduction",
        "discriminator_reduction",
        "weight",
    )
    return [dict(zip(names, values)) for values in combinations]


@pytest.mark.parametrize("options", every_option(), ids=lambda o: "-".join(map(str, o.values())))
def test_every_combination_of_options_is_the_formula(public, options):
    real, fake = features(), features()
    actual = public.feature_matching_loss(real, fake, **options)
    truth = formula(real, fake, **options)
    assert_close(actual, truth, 1e-14)
    maps = [f for fake_maps in fake for f in fake_maps]
    gradients = (torch.autograd.grad(x, maps, materialize_grads=True) for x in (actual, truth))
    for gradient, expected in zip(*gradients):
        assert_close(gradient, expected, 1e-14)


def test_one_list_of_maps_is_one_discriminator(public):
    real, fake = features()[0], features()[0]
    actual = public.feature_matching_loss(real, fake, discriminator_reduction="mean")
    assert_close(actual, formula([real], [fake]), 1e-14)


def test_hifigan_and_pix2pixhd_are_written_with_the_options(public):
    """2 sum_d sum_l L1, and sum_d sum_{l<last} L1 times 10 * 4 / (n_layers + 1) / D."""
    real, fake = features(), features()
    hifigan = public.feature_matching_loss(real, fake, weight=2)
    by_hand = 2 * sum(
        torch.nn.functional.l1_loss(r, f) for a, b in zip(real, fake) for r, f in zip(a, b)
    )
    assert_close(hifigan, by_hand, 1e-14)
    pix2pixhd = public.feature_matching_loss(
        real, fake, weight=40 / 4, include_last=False, discriminator_reduction="mean"
    )
    by_hand = sum(
        torch.nn.functional.l1_loss(f, r.detach()) * 10 * (4 / 4) * (1 / 2)
        for a, b in zip(real, fake)
        for r, f in zip(a[:-1], b[:-1])
    )
    assert_close(pix2pixhd, by_hand, 1e-14)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("criterion", DISTANCES)
def test_every_dtype_is_computed_in_float32_or_better(implementation, criterion, dtype):
    real, fake = features(dtype), features(dtype)
    actual = gf.feature_matching_loss(real, fake, criterion=criterion)
    exact = [[[t.double() for t in maps] for maps in side] for side in (real, fake)]
    assert_close(actual, formula(*exact, criterion=criterion), 8 * compute_epsilon(dtype))
    (gradient,) = torch.autograd.grad(actual, fake[0][0])
    assert gradient.dtype == dtype


def test_maps_of_one_call_may_differ_in_dtype(implementation):
    """As under autocast, where some layers run in half precision."""
    real = [draw(3, 5, dtype=dtype) for dtype in DTYPES[:3]]
    fake = [draw(3, 5, dtype=dtype) for dtype in DTYPES[:3]]
    exact = [[[t.double() for t in side]] for side in (real, fake)]
    assert_close(gf.feature_matching_loss(real, fake), formula(*exact), 1e-6)


def test_a_weight_may_be_a_0d_tensor_that_learns(public):
    real, fake = features(), features()
    weight = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    loss = public.feature_matching_loss(real, fake, weight=weight)
    (gradient,) = torch.autograd.grad(loss, weight)
    assert_close(gradient, formula(real, fake), 1e-14)


@pytest.mark.parametrize("detach_real", [True, False])
def test_detach_real_decides_whether_real_maps_get_a_gradient(public, detach_real):
    real, fake = features(), features()
    public.feature_matching_loss(real, fake, detach_real=detach_real).backward()
    for maps, fake_maps in zip(real, fake):
        for r, f in zip(maps, fake_maps):
            assert (r.grad is None) == detach_real
            if not detach_real:
                assert_close(r.grad, -f.grad, 1e-15)


def test_a_channels_last_map_is_compared_with_a_contiguous_one(implementation):
    real = draw(2, 3, 4, 5, dtype=torch.float64).to(memory_format=torch.channels_last)
    fake = draw(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    loss = gf.feature_matching_loss([real], [fake])
    assert_close(loss, formula([[real]], [[fake]]), 1e-14)
    (gradient,) = torch.autograd.grad(loss, fake)
    assert_close(gradient, (fake - real).sign() / fake.numel(), 1e-14)


# ---- frozen ------------------------------------------------------------------------------------


class Discriminator(nn.Module):
    """Returns its feature maps, the last of which are logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 1)])
        self.layers[1].bias.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            x = torch.nn.functional.leaky_relu(layer(x), 0.2)
            maps.append(x)
        return maps


def generator_gradient(generator: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(generator.parameters())))


def generator_step(generator: nn.Module, discriminator: nn.Module, **options: object) -> Tensor:
    noise, real = torch.linspace(-1, 1, 20).view(5, 4), torch.linspace(0, 1, 30).view(5, 6)
    real_maps, fake_maps = discriminator(real), discriminator(generator(noise))
    matching = gf.feature_matching_loss(real_maps, fake_maps, **options)
    return gf.generator_loss(fake_maps[-1], "hinge") + 2 * matching


def test_frozen_gives_the_generator_the_same_gradient_to_the_bit():
    generator, discriminator = nn.Linear(4, 6), Discriminator()
    plain = generator_gradient(
        generator, generator_step(generator, discriminator, detach_real=False)
    )
    with gf.frozen(discriminator):
        loss = generator_step(generator, discriminator)
    for gradient, expected in zip(generator_gradient(generator, loss), plain):
        assert torch.equal(gradient, expected)


def test_frozen_leaves_the_discriminator_without_gradients():
    generator, discriminator = nn.Linear(4, 6), Discriminator()
    with gf.frozen(discriminator):
        generator_step(generator, discriminator).backward()
    assert all(parameter.grad is None for parameter in discriminator.parameters())


def test_frozen_restores_what_each_parameter_was():
    discriminator = Discriminator()
    before = [parameter.requires_grad for parameter in discriminator.parameters()]
    assert not all(before)
    with gf.frozen(discriminator) as module:
        assert module is discriminator
        assert not any(parameter.requires_grad for parameter in discriminator.parameters())
    assert [parameter.requires_grad for parameter in discriminator.parameters()] == before


def test_frozen_restores_after_an_error():
    discriminator = nn.Linear(2, 2)
    with pytest.raises(KeyError), gf.frozen(discriminator):
        raise KeyError
    assert all(parameter.requires_grad for parameter in discriminator.parameters())


def test_frozen_may_be_nested():
    discriminator = nn.Linear(2, 2)
    with gf.frozen(discriminator):
        with gf.frozen(discriminator):
            pass
        assert not discriminator.weight.requires_grad
    assert discriminator.weight.requires_grad


def test_swapped_sides_are_noticed():
    """Some codebases pass (fake, real): the generator would get no gradient, silently."""
    fake, real = [torch.randn(2, 3, requires_grad=True)], [torch.randn(2, 3)]
    with pytest.raises(ValueError, match=r"look swapped.*feature_matching_loss\(real_features"):
        gf.feature_matching_loss(fake, real)
    with torch.no_grad():
        gf.feature_matching_loss(fake, real)
    gf.feature_matching_loss(fake, real, detach_real=False).backward()  # symmetric: no harm
    gf.feature_matching_loss(real, real)  # nothing is asked for
    gf.feature_matching_loss(fake, fake)  # the discriminator is not frozen


@pytest.mark.parametrize("layers", [2, 3])
def test_the_weight_of_pix2pixhd(layers):
    """Its trainer adds 4 / (n_layers + 1) / num_D * L1 * 10 over all maps but the last."""
    generator = torch.Generator().manual_seed(0)
    fake = [
        [torch.randn(2, k + 1, generator=generator) for k in range(layers + 2)] for _ in range(3)
    ]
    real = [[torch.randn_like(m) for m in maps] for maps in fake]
    expected = torch.zeros(())
    for own, other in zip(fake, real):
        for f, r in zip(own[:-1], other[:-1]):
            expected = expected + 4.0 / (layers + 1) * (1.0 / 3) * (f - r).abs().mean() * 10.0
    ours = gf.feature_matching_loss(
        real,
        fake,
        include_last=False,
        layer_reduction="mean",
        discriminator_reduction="mean",
        weight=40,
    )
    torch.testing.assert_close(ours, expected)
