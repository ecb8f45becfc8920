"""Fake CUDA tensors flow through every public function, and back twice: shapes, dtypes, devices.

A table over ``ganloss_fast.__all__``: a name that is in neither half of it fails.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fake_cuda import fake_cuda, walked_backward
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import ganloss_fast as gf
from ganloss_fast import ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

pytestmark = pytest.mark.skipif(
    not torch.backends.cuda.is_built(),
    reason="this torch has no CUDA, and aborts at a fake CUDA tensor that requires grad",
)
without_a_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
CUDA = torch.device("cuda", 0)


@pytest.fixture
def fakes():
    with fake_cuda():
        yield


def leaf(*shape: int) -> Tensor:
    return torch.empty(shape, device="cuda", requires_grad=True)


def critic(device: str = "cuda") -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, device=device),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(4 * 6 * 6, 2, device=device),
    )


# ---- the public functions ----------------------------------------------------------------------

Computed = tuple[list[Tensor], list[Tensor]]  # differentiable results, and what they depend on


def of_losses(compute: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Computed]:
    def run() -> Computed:
        real, fake = leaf(8, 3), leaf(8, 3)
        return [compute(real, fake)], [real, fake]

    return run


def of_details(compute: Callable[[Tensor, Tensor], gf.LossDetails]) -> Callable[[], Computed]:
    """The parts of a loss, and the statistics beside them."""

    def run() -> Computed:
        real, fake = leaf(8, 3), leaf(8, 3)
        details = compute(real, fake)
        assert type(details) is gf.LossDetails
        assert details.per_output.shape == (1,)
        for statistics in (details.stats.real, details.stats.fake):
            assert all(column.shape == (1,) and column.device == CUDA for column in statistics)
        return [details.total, details.per_output.sum()], [real, fake]

    return run


def of_penalty(compute: Callable[..., Tensor]) -> Callable[[], Computed]:
    """Differentiated by the critic's parameters, as a training step does."""

    def run() -> Computed:
        model = critic()
        real, fake = leaf(5, 3, 8, 8), leaf(5, 3, 8, 8)
        penalty = compute(model, real, fake)
        return [penalty], [p for p in model.parameters() if p.dim() > 1]

    return run


def logits_and_penalty(model: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    logits, penalty = gf.logits_and_penalty(model(real), real)
    return logits.mean() + penalty


def path_length() -> Computed:
    latents, mix = leaf(5, 7), leaf(7, 3 * 8 * 8)
    result = gf.path_length_penalty(
        (latents @ mix).tanh().view(5, 3, 8, 8), latents, torch.zeros((), device="cuda")
    )
    assert type(result) is gf.PathLength
    assert (result.mean.shape, result.lengths.shape) == ((), (5,))
    return [result.penalty], [latents, mix]


def cut() -> Computed:
    model, images = critic(), leaf(5, 3, 8, 8)
    (gradient,) = torch.autograd.grad(model(images).sum(), images, create_graph=True)
    gradient = gf.cut_second_order(gradient)
    return [gf.penalty_from_grads(gradient)], [model[0].weight]


def frozen_critic() -> Computed:
    images = leaf(5, 3, 8, 8)
    with gf.frozen(critic()) as model:
        return [gf.generator_loss(model(images), "hinge")], [images]


def balanced() -> Computed:
    """The norms come from a backward of its own, which has no graph to go through again."""
    images = leaf(5, 3, 8, 8)
    found = images.tanh()
    balance = gf.balanced_backward(
        [critic()(found).sum(), found.square().sum()],
        found,
        rule=gf.GradientShares(),
        retain_graph=True,
    )
    assert type(balance) is gf.Balance
    assert type(balance.averages) is gf.NormAverages
    assert {t.device for t in (*balance[:3], *balance.averages)} == {CUDA}
    return [found.square().sum()], [images]


def backwards() -> Computed:
    generator, model, noise = critic(), nn.Linear(2, 1, device="cuda"), leaf(5, 3, 8, 8)
    logits = model(generator(noise))
    gf.generator_backward(logits.sum(), generator, shared_critic=model)
    gf.discriminator_backward(logits.square().sum(), model, shares_forward=True)
    return [logits.square().sum()], [noise]


def together() -> Computed:
    real, fake = leaf(5, 8), leaf(3, 8)
    model = nn.Linear(8, 1, device="cuda")
    logits = gf.forward_together(model, real, fake)
    return [gf.discriminator_loss(*logits, "hinge")], [real, fake]


def diagnosed() -> Computed:
    images = leaf(5, 3, 8, 8)
    result = gf.diagnose(critic(), images, quiet=True)
    assert result.edges_cut == 1
    return [images.sum()], [images]


CALLS: dict[str, dict[str, Callable[[], Computed]]] = {
    "discriminator_loss": {
        "plain": of_losses(lambda r, f: gf.discriminator_loss(r, f, "bce")),
        "lists": of_losses(lambda r, f: gf.discriminator_loss([r, r[0]], [f, f[0]], "hinge")),
        "average": of_losses(
            lambda r, f: gf.discriminator_loss(r, f, gf.BCE(relativistic="average"))
        ),
    },
    "discriminator_loss_details": {
        "plain": of_details(lambda r, f: gf.discriminator_loss_details(r, f, "bce")),
        "average": of_details(
            lambda r, f: gf.discriminator_loss_details(r, f, gf.Hinge(relativistic="average"))
        ),
    },
    "discriminator_side_loss": {
        "both": of_losses(
            lambda r, f: (
                gf.discriminator_side_loss(r, True, "bce")
                + gf.discriminator_side_loss(f, False, "bce")
            )
        )
    },
    "DiscriminatorLoss": {
        "module": of_losses(lambda r, f: gf.DiscriminatorLoss("least_squares")(r, f))
    },
    "generator_loss": {
        "paired": of_losses(
            lambda r, f: gf.generator_loss(f, gf.BCE(relativistic="paired"), real=r)
        )
    },
    "generator_loss_details": {
        "average": of_details(
            lambda r, f: gf.generator_loss_details(f, gf.BCE(relativistic="average"), real=r)
        )
    },
    "GeneratorLoss": {
        "average": of_losses(
            lambda r, f: gf.GeneratorLoss(gf.BCE(relativistic="average"))(f, real=r)
        )
    },
    "feature_matching_loss": {
        "l1": of_losses(
            lambda r, f: gf.feature_matching_loss([r, r[0]], [f, f[0]], detach_real=False)
        )
    },
    "FeatureMatchingLoss": {
        "module": of_losses(
            lambda r, f: gf.FeatureMatchingLoss(criterion="mse", detach_real=False)([r], [f])
        )
    },
    "lecam_regularization": {
        form: of_losses(lambda r, f, form=form: gf.lecam_regularization(r, f, 0.0, 0.0, form=form))
        for form in ("logits", "means")
    },
    "LeCam": {
        form: of_losses(lambda r, f, form=form: gf.LeCam(form=form, warm_up=3).to("cuda")(r, f))
        for form in ("logits", "means")
    },
    "composite_loss": {
        "terms": of_losses(
            lambda r, f: (
                gf.composite_loss(
                    gan=gf.Adversarial(f, "hinge"),
                    pixels=gf.L1(f, r, 100.0, detach_target=False),
                    squares=gf.MSE(f, r, detach_target=False),
                    matching=gf.FeatureMatching([r], [f], detach_real=False),
                    maps=gf.Perceptual([f], [r], detach_target=False),
                    style=gf.Gram([f[:, None]], [r[:, None]], detach_target=False),
                ).total
            )
        )
    },
    "CompositeLoss": {
        "parts": of_losses(
            lambda r, f: gf.composite_loss(l1=gf.L1(f, r, detach_target=False)).total
        )
    },
    "gram_matrix": {"maps": of_losses(lambda r, f: gf.gram_matrix((r * f)[None]).sum())},
    "PerceptualFeatures": {
        "network": of_losses(
            lambda r, f: (
                gf.composite_loss(
                    maps=gf.Perceptual(
                        *gf.PerceptualFeatures(torch.tanh, detach_target=False)(f, r),
                        detach_target=False,
                    )
                ).total
            )
        )
    },
    "SequentialFeatures": {
        "layers": of_losses(
            lambda r, f: gf.SequentialFeatures(nn.Sequential(nn.Tanh()), {"a": 0})(r * f)["a"].sum()
        )
    },
    "BoundaryEquilibrium": {
        "step": of_losses(lambda r, f: gf.BoundaryEquilibrium(start_value=0.5).cuda()(r, f).loss)
    },
    "balanced_consistency_loss": {
        "both": of_losses(lambda r, f: gf.balanced_consistency_loss(r, f, f, r))
    },
    "consistency_loss": {"plain": of_losses(lambda r, f: gf.consistency_loss(r, f))},
    "latent_diversity_loss": {"plain": of_losses(lambda r, f: gf.latent_diversity_loss(r, f))},
    "dual_contrastive_loss": {"plain": of_losses(lambda r, f: gf.dual_contrastive_loss(r, f))},
    "multi_hinge_loss": {
        "classes": of_losses(
            lambda r, f: gf.multi_hinge_loss(
                r * f, torch.zeros(8, dtype=torch.int64, device="cuda")
            )
        )
    },
    "kl_weighted_logits": {
        "hinge": of_losses(lambda r, f: gf.discriminator_loss(r, gf.kl_weighted_logits(f), "hinge"))
    },
    "noisy_labels": {
        "both": of_losses(
            lambda r, f: gf.discriminator_loss(
                r,
                f,
                gf.BCE(gf.noisy_labels(r, 0.7, 1.2), gf.noisy_labels(f, 0.0, 0.3, per="element")),
            )
        )
    },
    "PooledMean": {
        "relative": of_losses(
            lambda r, f: gf.discriminator_loss(r - gf.PooledMean().cuda()(f), f, "bce")
        )
    },
    "top_k_logits": {
        "share": of_losses(lambda r, f: gf.generator_loss(gf.top_k_logits(r * f, 0.5), "bce"))
    },
    "clip_weights_": {
        "weights": of_losses(lambda r, f: (gf.clip_weights_([r, f]), (r * f).sum())[1])
    },
    "PackedCritic": {
        "packed": of_penalty(
            lambda m, r, f: gf.gradient_penalty(
                gf.PackedCritic(lambda x: m(x).unflatten(0, (-1, 5)).sum(1), 5),
                gf.packs(r, 5),
                gf.packs(f, 5),
            )
        )
    },
    "packs": {"view": of_losses(lambda r, f: (gf.packs(r, 4) * gf.packs(f, 4)).sum())},
    "LossDetails": {"result": of_details(lambda r, f: gf.discriminator_loss_details(r, f, "bce"))},
    "interpolate": {
        "drawn": of_losses(lambda r, f: gf.interpolate(r, f).square().sum()),
        "per element": of_losses(lambda r, f: gf.interpolate(r, f, r).square().sum()),
    },
    "perturb": {
        "noise": of_losses(
            lambda r, f: gf.perturb(
                r * f, 0.1, torch.zeros((), dtype=torch.int64, device="cuda")
            ).sum()
        )
    },
    "approximate_r1_penalty": {
        "sigma": of_penalty(lambda m, r, f: gf.approximate_r1_penalty(m, r)),
        "single forward": of_penalty(
            lambda m, r, f: gf.approximate_r1_penalty(m, r, single_forward=True)
        ),
    },
    "gradient_penalty": {
        "mixed": of_penalty(gf.gradient_penalty),
        "uncut": of_penalty(
            lambda m, r, f: gf.gradient_penalty(m, r, f, how=gf.Differentiation(graph_cut="off"))
        ),
        "composed": of_penalty(
            lambda m, r, f: gf.gradient_penalty(m, r, f, penalty=gf.WGANGP(power=6, norm="channel"))
        ),
    },
    "GradientPenalty": {
        "module": of_penalty(lambda m, r, f: gf.GradientPenalty(weight=1.0)(m, r, f))
    },
    "gradient_penalty_details": {
        "mixed": of_penalty(lambda m, r, f: gf.gradient_penalty_details(m, r, f).penalty)
    },
    "AroundReal": {"at": of_penalty(lambda m, r, f: gf.gradient_penalty(m, r, at=gf.AroundReal()))},
    "Call": {
        "weighted": of_penalty(lambda m, r, f: gf.r1_penalty(gf.Call(m, output_weights=[2.0]), r))
    },
    "r1_penalty": {
        "plain": of_penalty(lambda m, r, f: gf.r1_penalty(m, r)),
        "scaled": of_penalty(lambda m, r, f: gf.r1_penalty(m, r, inv_scale=0.5)),
    },
    "r2_penalty": {"plain": of_penalty(lambda m, r, f: gf.r2_penalty(m, f))},
    "penalty_from_logits": {
        "plain": of_penalty(lambda m, r, f: gf.penalty_from_logits(m(r), r)),
        "all zeros": of_penalty(
            lambda m, r, f: gf.penalty_from_logits(
                m(r), r, how=gf.Differentiation(zero_grads="all")
            )
        ),
    },
    "logits_and_penalty": {"plain": of_penalty(logits_and_penalty)},
    "penalty_from_grads": {
        "plain": of_losses(
            lambda r, f: gf.penalty_from_grads(r * f, penalty=gf.NormPenalty(5.0, target=1.0))
        )
    },
    "path_length_penalty": {"plain": path_length},
    "PathLength": {"result": path_length},
    "cut_second_order": {"penalty": cut},
    "frozen": {"generator step": frozen_critic},
    "balanced_backward": {"shares": balanced},
    "Balance": {"result": balanced},
    "NormAverages": {"result": balanced},
    "generator_backward": {"one forward": backwards},
    "discriminator_backward": {"one forward": backwards},
    "forward_together": {"both sides": together},
    "diagnose": {"quiet": diagnosed},
}

NO_TENSOR_WORK = {
    **dict.fromkeys(("BCE", "Hinge", "LeastSquares", "Wasserstein"), "the description of a loss"),
    **dict.fromkeys(
        ("NormPenalty", "WGANGP", "R1", "R2", "Dragan", "PENALTIES"), "the description of a penalty"
    ),
    "Differentiation": "how a penalty is computed",
    **dict.fromkeys(("AdaptiveWeight", "GradientShares"), "the description of a rule"),
    "LazyRegularizer": "counts steps",
    "compile_options": "the options of torch.compile",
    **dict.fromkeys(("get_backend", "set_backend", "use_backend"), "choose who computes"),
    **dict.fromkeys(
        ("Adversarial", "L1", "MSE", "FeatureMatching", "Perceptual", "Gram"),
        "the terms of composite_loss, which is in the table",
    ),
    "FeaturePair": "comes out of PerceptualFeatures",
    **dict.fromkeys(
        (
            "BoundaryEquilibriumStep",
            "Diagnosis",
            "LogitsAndPenalty",
            "LossStatistics",
            "PenaltyDetails",
        ),
        "come out of calls that are in the table",
    ),
}


def test_every_public_name_is_in_the_table():
    assert not set(CALLS) & set(NO_TENSOR_WORK)
    assert set(CALLS) | set(NO_TENSOR_WORK) == set(gf.__all__)


def assert_fakes_of(tensors: list[Tensor], likes: list[Tensor]) -> None:
    for tensor, like in zip(tensors, likes):
        assert tensor.device == CUDA
        assert (tensor.shape, tensor.dtype) == (like.shape, like.dtype)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("name", "variant"), [(n, v) for n, rows in CALLS.items() for v in rows])
def test_fake_cuda_tensors_flow_through_and_back_twice(fakes, name, variant, backend):
    with gf.use_backend(backend):
        outputs, inputs = CALLS[name][variant]()
        for output in outputs:
            assert (output.shape, output.dtype, output.device) == ((), torch.float32, CUDA)
        first = torch.autograd.grad(outputs, inputs, create_graph=True)
        assert_fakes_of(first, inputs)
        along = [gradient.square().sum() for gradient in first if gradient.requires_grad]
        if along:  # of linear terms nothing is left
            second = torch.autograd.grad(along, inputs, allow_unused=True)
            pairs = [(g, x) for g, x in zip(second, inputs) if g is not None]
            assert_fakes_of([g for g, _ in pairs], [x for _, x in pairs])


def test_a_penalty_in_chunks_has_its_one_backward(fakes):
    """Without asking whether samples interact: fakes have no values to ask."""
    model, real = critic(), leaf(5, 3, 8, 8).detach()
    penalty = gf.gradient_penalty(model, real, real, how=gf.Differentiation(chunk_size=2))
    weights = [model[0].weight, model[3].weight]
    assert (penalty.shape, penalty.device) == ((), CUDA)
    assert_fakes_of(torch.autograd.grad(penalty, weights), weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_the_results_have_the_dtypes_that_the_docs_promise(fakes, dtype):
    a = torch.empty(8, 3, device="cuda", dtype=dtype)
    promised = torch.float64 if dtype == torch.float64 else torch.float32
    outputs = ops.multi_tensor_loss([Segment(a, terms.softplus(1.0))], with_statistics=True)
    assert {result.dtype for result in outputs} == {promised}
    assert outputs.statistics.shape == (1, 4)
    assert ops.norm_penalty(a, "two_sided", 1.0, 1.0)[1].dtype == promised
    assert gf.interpolate(a, a).dtype == dtype


# ---- the engine that stands in -----------------------------------------------------------------


@without_a_gpu
def test_the_engine_of_torch_itself_fails_on_fake_cuda_tensors():
    """With no code of ours. Once this passes, the walk in fake_cuda.py can go."""
    with FakeTensorMode(), pytest.raises(RuntimeError, match=r"hasPrimaryContext|NVIDIA driver"):
        leaf(3).sum().backward()


def test_the_walk_gives_the_gradients_of_the_engine():
    """On real tensors, through native nodes and stock ones, to second order."""
    model = critic("cpu")
    real, fake = torch.randn(2, 5, 3, 8, 8)

    def gradients() -> tuple[Tensor, ...]:
        penalty = gf.gradient_penalty(model, real, fake, alpha=0.3)
        loss = gf.discriminator_loss(model(real), model(fake), "bce")
        return torch.autograd.grad(penalty + loss, list(model.parameters()))

    with walked_backward():
        walked = gradients()
    for ours, theirs in zip(walked, gradients()):
        torch.testing.assert_close(ours, theirs)
