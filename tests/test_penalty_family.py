"""The penalties against the formulas, written out in plain PyTorch."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from critics import SpectralResNet, StyleGan2, dcgan, patchgan
from torch import nn
from torch.utils.checkpoint import checkpoint

import ganloss_fast as gf
from ganloss_fast import backends, reference

TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12}


@pytest.fixture(params=["native", "reference"] if backends.HAS_NATIVE else ["reference"])
def backend(request):
    with gf.use_backend(request.param):
        yield request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def small_critic(dtype=torch.float32) -> nn.Module:
    torch.manual_seed(11)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 4, 3, 2, 1), nn.LeakyReLU(0.2)
    ).to(dtype)


def samples(dtype=torch.float32, batch=4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(12)
    return tuple(torch.randn(2, batch, 3, 8, 8, dtype=dtype).unbind())


def hand_written(critic, x, formula) -> torch.Tensor:
    """``formula`` of the input gradient of the sum of all logits."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return formula(gradient)


def assert_penalty(actual, wanted, critic, tolerance):
    """Equal values, and equal gradients of every parameter."""
    parameters = list(critic.parameters())
    a = torch.autograd.grad(actual.sum(), parameters, allow_unused=True)
    b = torch.autograd.grad(wanted.sum(), parameters, allow_unused=True)
    assert torch.allclose(actual.detach(), wanted.detach(), rtol=tolerance, atol=0)
    scale = max(gradient.abs().max() for gradient in b if gradient is not None)
    for ours, theirs in zip(a, b, strict=True):
        if theirs is None:
            assert ours is None or not ours.any()
        else:
            assert (ours - theirs).abs().max() <= tolerance * scale


def flat(g):
    return g.flatten(1)


ALPHA = torch.tensor([0.1, 0.9, 0.5, 0.0])
MASK = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2)).round()

VARIANTS = {
    "WGAN-GP": ({}, lambda g: 10 * (flat(g).norm(dim=1) - 1).square().mean()),
    "weight tensor": (
        {"weight": torch.tensor(3.0)},
        lambda g: 3 * (flat(g).norm(dim=1) - 1).square().mean(),
    ),
    "target": ({"target": 0.3}, lambda g: 10 * (flat(g).norm(dim=1) - 0.3).square().mean()),
    "one-sided": (
        {"one_sided": True, "target": 0.05},
        lambda g: 10 * (flat(g).norm(dim=1) - 0.05).relu().square().mean(),
    ),
    "zero-centred": ({"target": 0}, lambda g: 10 * flat(g).square().sum(1).mean()),
    "WGAN-div": (
        {"target": 0, "power": 6, "weight": 1},
        lambda g: flat(g).square().sum(1).pow(3).mean(),
    ),
    "maximum": (
        {"target": 0, "reduction": "max"},
        lambda g: 10 * flat(g).square().sum(1).max(),
    ),
    "sum": ({"reduction": "sum"}, lambda g: 10 * (flat(g).norm(dim=1) - 1).square().sum()),
    "none": ({"reduction": "none"}, lambda g: 10 * (flat(g).norm(dim=1) - 1).square()),
    "per pixel": ({"norm": "channel"}, lambda g: 10 * (g.norm(dim=1) - 1).square().mean()),
    "whole batch": ({"norm": "batch"}, lambda g: 10 * (g.norm() - 1).square()),
    "eps in the root": (
        {"eps": 1e-4},
        lambda g: 10 * ((flat(g).square().sum(1) + 1e-4).sqrt() - 1).square().mean(),
    ),
    "eps added": (
        {"eps": 1e-2, "eps_at": "gradient"},
        lambda g: 10 * ((flat(g) + 1e-2).norm(dim=1) - 1).square().mean(),
    ),
    "masked": (
        {"mask": MASK},
        lambda g: 10 * (flat(g * MASK.to(g.dtype)).norm(dim=1) - 1).square().mean(),
    ),
    "masked and normalised, per pixel": (
        {"mask": MASK, "normalize_by_mask": True, "norm": "channel"},
        lambda g: (
            10 * ((g * MASK.to(g.dtype)).norm(dim=1) - 1).square().mean() / MASK.to(g.dtype).mean()
        ),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_published_variant_is_its_formula(backend, dtype, variant):
    options, formula = VARIANTS[variant]
    critic = small_critic(dtype)
    real, fake = samples(dtype)
    alpha = ALPHA.to(dtype)
    x_hat = reference.lerp(real, fake, alpha)
    actual = gf.gradient_penalty(critic, real, fake, alpha=alpha, **options)
    assert_penalty(actual, hand_written(critic, x_hat, formula), critic, TOLERANCE[dtype])


@pytest.mark.parametrize("sampling", ["real", "fake"])
def test_sampling_at_real_or_fake_samples(sampling):
    critic = small_critic()
    real, fake = samples()
    point = real if sampling == "real" else fake
    wanted = hand_written(critic, point, VARIANTS["WGAN-GP"][1])
    assert_penalty(gf.gradient_penalty(critic, real, fake, sampling=sampling), wanted, critic, 3e-6)


@pytest.mark.parametrize("std", ["sample", "population"])
def test_dragan_samples_lie_around_real_ones(std):
    real, _ = samples()
    seen = []
    critic = small_critic()

    def spy(x):
        seen.append(x.detach())
        return critic(x)

    gf.gradient_penalty(spy, real, sampling=gf.Dragan(std=std), alpha=0.0)
    step = (seen[0] - real) / (0.5 * real.std(correction=1 if std == "sample" else 0))
    assert step.min() >= 0
    assert step.max() < 1
    assert step.mean() == pytest.approx(0.5, abs=0.05)


def test_compare_gan_dragan_is_centred_and_clamped():
    real, _ = samples()
    noisy = gf.Dragan(1.0, "population", "centered", (0.0, 1.0)).noisy(real, None)
    assert noisy.min() >= 0
    assert noisy.max() <= 1


@pytest.mark.parametrize(("kind", "distinct"), [("sample", 4), ("element", 768), ("batch", 1)])
def test_alpha_is_drawn_for_each_sample_element_or_batch(kind, distinct):
    real, fake = torch.ones(4, 3, 8, 8), torch.zeros(4, 3, 8, 8)
    x_hat = gf.interpolate(real, fake, kind)
    assert x_hat.unique().numel() == distinct
    assert 0 <= x_hat.min() <= x_hat.max() < 1


def test_the_same_generator_gives_the_same_penalty():
    critic = small_critic()
    real, fake = samples()
    first, second = (
        gf.gradient_penalty(critic, real, fake, rng=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(first, second)


# ---- critics as people have them -----------------------------------------------------------------


def test_a_critic_with_labels():
    torch.manual_seed(0)
    critic = SpectralResNet(8, 16, classes=5).eval()
    x, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 4, 2, 2])
    for options in ({"critic_args": (labels,)}, {"critic_kwargs": {"labels": labels}}):
        wanted = hand_written(lambda z: critic(z, labels), x, VARIANTS["WGAN-GP"][1])
        actual = gf.gradient_penalty(critic, x, sampling="real", **options)
        assert_penalty(actual, wanted, critic, 3e-6)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.vector = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)

    def forward(self, image, vector):
        return F.relu(self.image(image).mean((2, 3)) + self.vector(vector)).sum(1)


def test_the_norm_runs_over_all_inputs(backend):
    torch.manual_seed(1)
    critic = TwoInputs()
    image, vector = torch.randn(4, 3, 8, 8), torch.randn(4, 5)
    points = [image.clone().requires_grad_(), vector.clone().requires_grad_()]
    gradients = torch.autograd.grad(critic(*points).sum(), points, create_graph=True)
    norms = torch.cat([g.flatten(1) for g in gradients], 1).norm(dim=1)
    actual = gf.gradient_penalty(critic, (image, vector), sampling="real")
    assert_penalty(actual, 10 * (norms - 1).square().mean(), critic, 3e-6)


def test_one_alpha_serves_all_inputs_of_a_sample():
    seen = []

    def critic(a, b):
        seen.extend([a.detach(), b.detach()])
        return a.flatten(1).sum(1) + b.flatten(1).sum(1)

    real = (torch.ones(4, 3), torch.ones(4, 2, 2))
    fake = (torch.zeros(4, 3), torch.zeros(4, 2, 2))
    gf.gradient_penalty(critic, real, fake)
    assert torch.equal(seen[0][:, 0], seen[1][:, 0, 0])


def test_a_list_of_outputs_is_weighted_and_added():
    critic = small_critic()
    x, _ = samples()
    multi = lambda z: [critic(z), critic[:2](z)]  # noqa: E731
    wanted = hand_written(
        lambda z: 0.5 * critic(z).sum() + 2 * critic[:2](z).sum(), x, VARIANTS["WGAN-GP"][1]
    )
    actual = gf.gradient_penalty(multi, x, sampling="real", output_weights=[0.5, 2.0])
    assert_penalty(actual, wanted, critic, 3e-6)


def test_logits_can_be_averaged_instead_of_added():
    critic = small_critic()
    x, _ = samples()
    wanted = hand_written(
        lambda z: critic(z).mean(), x, lambda g: 5 * flat(g).square().sum(1).mean()
    )
    assert_penalty(gf.r1_penalty(critic, x, logit_reduction="mean"), wanted, critic, 3e-6)


def test_a_dead_sample_adds_its_penalty_and_no_gradient():
    linear = nn.Linear(3, 1)
    critic = lambda x: linear(x).relu()  # noqa: E731
    with torch.no_grad():
        linear.bias.fill_(-100)
    penalty = gf.gradient_penalty(critic, torch.randn(4, 3), sampling="real")
    penalty.backward()
    assert penalty.item() == 10
    assert not linear.weight.grad.any()


# ---- R1, R2, and the forms without a critic ------------------------------------------------------


@pytest.mark.parametrize("function", [gf.r1_penalty, gf.r2_penalty])
def test_r1_and_r2_are_half_gamma_times_the_squared_norm(backend, dtype, function):
    critic = small_critic(dtype)
    x, _ = samples(dtype)
    gamma = 10.0
    wanted = hand_written(critic, x, lambda g: gamma / 2 * flat(g).square().sum(1).mean())
    assert_penalty(function(critic, x), wanted, critic, TOLERANCE[dtype])


def test_penalty_from_logits_and_from_grads_are_r1():
    critic = small_critic()
    x, _ = samples()
    wanted = gf.r1_penalty(critic, x)
    point = x.clone().requires_grad_()
    assert_penalty(gf.penalty_from_logits(critic(point), point), wanted, critic, 1e-7)
    wanted = gf.r1_penalty(critic, x)
    (gradient,) = torch.autograd.grad(critic(point).sum(), point, create_graph=True)
    assert_penalty(gf.penalty_from_grads(gf.cut_second_order(gradient)), wanted, critic, 1e-7)


def test_no_graph_is_built_under_no_grad():
    critic = small_critic()
    x, _ = samples()
    with torch.no_grad():
        penalty = gf.r1_penalty(critic, x)
    assert not penalty.requires_grad
    assert torch.allclose(penalty, gf.r1_penalty(critic, x).detach())


# ---- functional transforms -----------------------------------------------------------------------


def test_inside_torch_func_grad_over_parameters():
    critic = small_critic(torch.float64)
    x, _ = samples(torch.float64)
    parameters = dict(critic.named_parameters())

    def loss(parameters):
        run = lambda z: torch.func.functional_call(critic, parameters, (z,))  # noqa: E731
        return gf.gradient_penalty(run, x, sampling="real")

    functional = torch.func.grad(loss)({k: v.detach() for k, v in parameters.items()})
    gf.gradient_penalty(critic, x, sampling="real").backward()
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            assert torch.allclose(functional[name], parameter.grad, rtol=1e-12, atol=1e-15)


# ---- mixed precision -----------------------------------------------------------------------------


class HostSync(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails where a value is read on the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func._overloadpacket is not torch.ops.aten._local_scalar_dense
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", ["scaler", "tensor", "number"])
def test_inv_scale_changes_nothing_in_float32(form):
    critic = small_critic()
    x, _ = samples()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    inv_scale = {"scaler": scaler, "tensor": torch.tensor(1 / 1024), "number": 1 / 1024}[form]
    actual = gf.gradient_penalty(critic, x, sampling="real", inv_scale=inv_scale)
    wanted = gf.gradient_penalty(critic, x, sampling="real")
    assert_penalty(actual, wanted, critic, 3e-6)


def test_the_scale_is_not_read_on_the_host():
    critic = small_critic()
    x, _ = samples()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(()))  # creates the scale
    with HostSync(), gf.use_backend("reference"):
        gf.r1_penalty(critic, x, inv_scale=scaler).backward()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_worked_autocast_example_stays_finite_and_right(half):
    """Gradients of 1e-6 vanish in float16 unless the logits are scaled."""
    critic = small_critic()
    critic[2].weight.data.mul_(1e-4)
    x, _ = samples()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=half == torch.float16)
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.0)
    with torch.autocast("cpu", dtype=half):
        penalty = gf.r1_penalty(critic, x, weight=1e4, inv_scale=scaler)
    scaler.scale(penalty).backward()
    scaler.unscale_(optimizer)
    wanted = copy.deepcopy(critic).double()
    wanted.zero_grad()
    gf.r1_penalty(wanted, x.double(), weight=1e4).backward()
    assert penalty.dtype == torch.float32
    for ours, theirs in zip(critic.parameters(), wanted.parameters(), strict=True):
        if theirs.grad is not None and theirs.grad.any():
            assert ours.grad.isfinite().all()
            error = (ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max()
            assert error < 0.05


def test_squares_are_accumulated_in_float32():
    """3 * 256 * 256 ones: their squares overflow a float16 sum."""
    for dtype in (torch.float16, torch.bfloat16):
        gradient = torch.ones(1, 3, 256, 256, dtype=dtype)
        penalty = gf.penalty_from_grads(gradient, weight=1.0)
        assert penalty.item() == 3 * 256 * 256


# ---- slices of the batch -------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 3, 8])
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"norm": "channel"}], ids=str)
def test_chunks_equal_the_whole_to_rounding(chunk_size, options):
    critic = small_critic()
    x, _ = samples(batch=8)
    mask = torch.rand(8, 1, 8, 8)
    options = {"sampling": "real", "mask": mask, "normalize_by_mask": True, **options}
    actual = gf.gradient_penalty(critic, x, chunk_size=chunk_size, **options)
    assert_penalty(actual, gf.gradient_penalty(critic, x, **options), critic, 3e-6)


def test_chunks_take_labels_and_scale_with_the_incoming_gradient():
    critic = SpectralResNet(8, 16, classes=5).eval()
    x, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 4, 2, 1])
    grads = []
    for chunk_size in (None, 2):
        critic.zero_grad()
        penalty = gf.r1_penalty(critic, x, critic_args=(labels,), chunk_size=chunk_size)
        (3 * penalty).backward()
        grads.append([p.grad for p in critic.parameters()])
    for a, b in zip(*grads, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-4, atol=1e-7)


def test_chunks_see_the_spectral_norm_of_the_first():
    """The power iteration runs once per forward: four times would be another critic."""
    torch.manual_seed(0)
    critic = SpectralResNet(8, 16)
    whole = copy.deepcopy(critic)
    x = torch.randn(4, 3, 16, 16)
    gf.r1_penalty(critic, x, chunk_size=1).backward()
    gf.r1_penalty(whole, x).backward()
    for (name, a), b in zip(critic.named_parameters(), whole.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-7), name
    for a, b in zip(critic.buffers(), whole.buffers(), strict=True):
        assert torch.equal(a, b)
    assert all(module.training for module in critic.modules())


def test_chunks_work_with_a_checkpointed_critic():
    critic = small_critic()
    x, _ = samples()
    run = lambda z: checkpoint(critic, z, use_reentrant=False)  # noqa: E731
    wanted = gf.r1_penalty(critic, x)
    assert_penalty(gf.r1_penalty(run, x, chunk_size=2), wanted, critic, 3e-6)


def test_chunks_reach_a_generator_that_was_not_detached():
    generator, critic = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    z = torch.randn(4, 3)
    grads = []
    for chunk_size in (None, 2):
        generator.zero_grad()
        gf.r2_penalty(critic, generator(z), chunk_size=chunk_size).backward()
        grads.append(generator.weight.grad)
    assert torch.allclose(*grads, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [lambda: patchgan(4, nn.BatchNorm2d), lambda: StyleGan2(4, 16, group=2)],
    ids=["batch norm", "mini-batch standard deviation"],
)
def test_chunks_refuse_critics_whose_samples_interact(make):
    with pytest.raises(ValueError, match="samples of this critic interact"):
        gf.r1_penalty(make(), torch.randn(4, 3, 32, 32)[..., :16, :16], chunk_size=2)


def test_chunks_refuse_buffers_that_move():
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Conv2d(4, 1, 3)
    )
    with pytest.raises(ValueError, match="a buffer of the critic changes"):
        gf.r1_penalty(critic, torch.randn(4, 3, 8, 8), chunk_size=2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"chunk_size": 0}, ValueError, "at least 1"),
        ({"chunk_size": 2.0}, TypeError, "an integer"),
        ({"chunk_size": 2, "reduction": "max"}, ValueError, "slices can be added up"),
        ({"chunk_size": 2, "norm": "batch"}, ValueError, "slices can be added up"),
    ],
)
def test_chunks_refuse_what_slices_cannot_give(options, error, message):
    with pytest.raises(error, match=f"chunk_size: .*{message}"):
        gf.gradient_penalty(small_critic(), samples()[0], sampling="real", **options)


# ---- bad input -----------------------------------------------------------------------------------


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x):
        return self.linear(x.mul_(2))


@pytest.mark.parametrize(
    ("critic", "error", "message"),
    [
        (lambda x: None, TypeError, "it returned None"),
        (lambda x: [], ValueError, "an empty sequence"),
        (lambda x: 3.0, TypeError, "expected a tensor of logits"),
        (lambda x: [[x.sum()], x.sum()], TypeError, "output 0 is a list of 1. Wrap"),
        (lambda x: {"logits": x}, TypeError, "expected a tensor of logits"),
        (lambda x: x.detach().sum(), ValueError, "may be detached"),
        (lambda x: torch.ones(2, requires_grad=True), ValueError, "does not depend on its input"),
        (lambda x: x.sum().long(), TypeError, "critic output: expected float16"),
        (InPlace(), ValueError, "changes its input in place"),
        ("critic", TypeError, "expected a function or a module"),
    ],
)
def test_a_critic_that_cannot_be_penalised_is_explained(critic, error, message):
    with pytest.raises(error, match=message):
        gf.gradient_penalty(critic, torch.randn(2, 3), torch.randn(2, 3))


def test_a_critic_that_changes_a_computed_input_in_place_is_refused():
    fake = torch.randn(2, 3, requires_grad=True) * 1.0
    with pytest.raises(ValueError, match="changes its input in place"):
        gf.r2_penalty(InPlace(), fake)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sampling": "middle"}, ValueError, "sampling: expected one of mixed"),
        ({"norm": "pixel"}, ValueError, "norm: expected one of"),
        ({"eps": -1.0}, ValueError, "eps: expected a number >= 0"),
        ({"power": 0}, ValueError, "power: expected a number > 0"),
        ({"reduction": "median"}, ValueError, "reduction: expected one of"),
        ({"normalize_by_mask": True}, ValueError, "no mask"),
        ({"output_weights": [1.0, 2.0]}, ValueError, "output_weights: expected one for each"),
        ({"inv_scale": 0.0}, ValueError, "inv_scale: expected a number > 0"),
        ({"graph_cut": "on"}, ValueError, "graph_cut: expected one of auto, off"),
        ({"weight": torch.ones(2)}, ValueError, "weight: expected a number or a 0-d"),
        ({"alpha": "pixel"}, ValueError, "alpha: expected one of"),
    ],
)
def test_a_wrong_option_is_explained(options, error, message):
    with pytest.raises(error, match=message):
        gf.gradient_penalty(small_critic(), *samples(), **options)


def test_missing_samples_are_explained():
    with pytest.raises(ValueError, match="fake: sampling 'mixed' needs fake samples"):
        gf.gradient_penalty(small_critic(), samples()[0])


def test_logits_need_inputs_that_require_grad():
    critic = small_critic()
    with pytest.raises(ValueError, match=r"Call inputs.requires_grad_\(\) before the critic"):
        gf.penalty_from_logits(critic(samples()[0]), samples()[0])


def test_batch_norm_under_a_per_sample_penalty_warns_once():
    critic = patchgan(4, nn.BatchNorm2d)
    x = torch.randn(2, 3, 32, 32)
    with pytest.warns(UserWarning, match="3 is batch normalisation in training mode"):
        gf.r1_penalty(critic, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.r1_penalty(critic, x)


# ---- noise, approximated R1 ----------------------------------------------------------------------


def test_philox_words_are_the_published_ones():
    """Random123's known answers for counter 0 and all ones under key 0."""
    words = reference.philox(torch.tensor(0), 1)[0].tolist()
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.skipif(not backends.HAS_NATIVE, reason="compares two backends")
@pytest.mark.parametrize("seed", [0, 1, -1, 2**62 + 12345])
def test_noise_is_the_same_on_every_backend(dtype, seed):
    x = torch.zeros(1001, dtype=dtype)
    noise = []
    for name in ("native", "reference"):
        with gf.use_backend(name):
            noise.append(gf.perturb(x, 1.0, torch.tensor(seed)))
    gap = (noise[0] - noise[1]).abs()
    ulp = torch.nextafter(noise[1].abs(), torch.tensor(torch.inf, dtype=dtype)) - noise[1].abs()
    assert (gap <= 4 * ulp).all()


def test_noise_is_standard_normal(backend):
    noise = gf.perturb(torch.zeros(40_000, dtype=torch.float64), 1.0, torch.tensor(7))
    assert noise.mean().abs() < 4 / math.sqrt(40_000)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert noise.pow(4).mean() == pytest.approx(3, abs=0.2)
    assert torch.corrcoef(torch.stack([noise[:-1], noise[1:]]))[0, 1].abs() < 0.02


def test_noise_does_not_depend_on_layout_or_threads(backend):
    x = torch.randn(3, 4, 5, 6)
    seed = torch.tensor(9)
    wanted = gf.perturb(x, 0.1, seed)
    channels_last = gf.perturb(x.to(memory_format=torch.channels_last), 0.1, seed)
    assert torch.equal(wanted, channels_last)
    assert torch.equal(
        wanted, gf.perturb(x.transpose(0, 1).contiguous().transpose(0, 1), 0.1, seed)
    )


def test_the_gradient_passes_through_the_noise(backend):
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: gf.perturb(z, 0.5, torch.tensor(3)), x)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # opcheck's own
@pytest.mark.skipif(not backends.HAS_NATIVE, reason="there is no op")
def test_perturb_is_a_well_behaved_op():
    x = torch.randn(3, 5, requires_grad=True)
    torch.library.opcheck(torch.ops.ganloss_fast.perturb.default, (x, 0.5, torch.tensor(3)))


@pytest.mark.parametrize("normalization", ["mean", "sigma", "sample_sum"])
@pytest.mark.parametrize("single_forward", [False, True])
def test_approximate_r1_is_its_formula(normalization, single_forward):
    critic = small_critic(torch.float64)
    x, _ = samples(torch.float64)
    seed = torch.tensor(4)
    difference = critic(x) - critic(gf.perturb(x, 0.05, seed))
    wanted = {
        "mean": difference.square().mean(),
        "sigma": (difference / 0.05).square().mean(),
        "sample_sum": difference.square().flatten(1).sum(1).mean(),
    }[normalization]
    actual = gf.approximate_r1_penalty(
        critic,
        x,
        0.05,
        weight=3,
        normalization=normalization,
        single_forward=single_forward,
        seed=seed,
    )
    assert_penalty(actual, 3 * wanted, critic, 1e-12)


def test_approximate_r1_tends_to_r1():
    """For a linear critic the expectation is exact: sigma^2 R1."""
    critic = nn.Linear(16, 1).double()
    x = torch.randn(20_000, 16, dtype=torch.float64)
    approximate = gf.approximate_r1_penalty(
        critic, x, 0.1, weight=1, normalization="sigma", seed=torch.tensor(1)
    )
    exact = gf.r1_penalty(critic, x, weight=1)
    assert approximate.item() == pytest.approx(exact.item(), rel=0.05)


def test_approximate_r1_reuses_logits():
    critic = small_critic()
    x, _ = samples()
    seed = torch.tensor(4)
    wanted = gf.approximate_r1_penalty(critic, x, seed=seed)
    assert torch.equal(gf.approximate_r1_penalty(critic, x, logits=critic(x), seed=seed), wanted)


def test_the_difference_of_half_logits_is_taken_in_float32():
    critic = lambda x: (x * 300).sum(1).to(torch.float16)  # noqa: E731
    x = torch.ones(2, 3)
    penalty = gf.approximate_r1_penalty(critic, x, 0.5, weight=1, seed=torch.tensor(0))
    assert penalty.dtype == torch.float32
    assert penalty.isfinite()


def test_a_sigma_that_bfloat16_swallows_warns():
    critic = small_critic().bfloat16()
    x = samples()[0].bfloat16()
    with pytest.warns(UserWarning, match="sigma: 0.01 is too small for a critic in torch.bfloat16"):
        gf.approximate_r1_penalty(critic, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.approximate_r1_penalty(critic, x, sigma=0.1)


# ---- path length, lazy regularisation ------------------------------------------------------------


def test_path_length_is_the_published_formula():
    torch.manual_seed(0)
    mapping = nn.Linear(16, 3 * 8 * 8).double()
    latents = torch.randn(4, 6, 16, dtype=torch.float64, requires_grad=True)
    images, again = (mapping(latents.sum(1)).tanh().view(4, 3, 8, 8) for _ in range(2))
    noise = torch.randn_like(images) / 8
    mean = torch.tensor(0.5, dtype=torch.float64)
    result = gf.path_length_penalty(images, latents, mean, noise=noise)
    (g,) = torch.autograd.grad((again * noise).sum(), latents, create_graph=True)
    lengths = g.square().sum(2).mean(1).sqrt()
    average = mean.lerp(lengths.mean(), 0.01)
    assert_penalty(result.penalty, 2 * (lengths - average).square().mean(), mapping, 1e-12)
    assert result.mean.item() == pytest.approx(average.item())
    assert not result.mean.requires_grad
    assert torch.allclose(result.lengths, lengths)


def test_path_length_mean_stays_on_the_device_and_is_not_changed():
    latents = torch.randn(2, 4, requires_grad=True)
    images = (latents @ torch.randn(4, 12)).view(2, 3, 2, 2)
    mean = torch.zeros(())
    with HostSync():
        gf.path_length_penalty(images, latents, mean, graph_cut="off")
    assert mean.item() == 0


def test_lazy_regularisation_has_the_interval_scale_and_adam_of_stylegan2():
    lazy = gf.LazyRegularizer(every=16)
    assert [step for step in range(40) if lazy.is_due(step)] == [0, 16, 32]
    assert lazy.scale == 16
    adam = lazy.adam(lr=0.002, betas=(0.0, 0.99))
    assert adam["lr"] == pytest.approx(0.002 * 16 / 17)
    assert adam["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))


@pytest.mark.parametrize(("every", "error"), [(0, ValueError), (1.5, TypeError)])
def test_a_wrong_interval_is_refused(every, error):
    with pytest.raises(error, match="every: expected"):
        gf.LazyRegularizer(every)


def test_a_penalty_on_dcgan_matches_the_hand_written_one(dtype):
    torch.manual_seed(0)
    critic = dcgan(8).to(dtype)
    x = torch.randn(4, 3, 32, 32, dtype=dtype)
    wanted = hand_written(critic, x, VARIANTS["WGAN-GP"][1])
    actual = gf.gradient_penalty(critic, x, sampling="real")
    assert_penalty(actual, wanted, critic, TOLERANCE[dtype])
