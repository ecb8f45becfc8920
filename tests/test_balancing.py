"""balanced_backward: the step of a VQGAN or a codec trainer, to rounding, in fewer operations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from critics import patchgan
from image_tokenizers import ConvTokenizer, PatchTokenizer, Perceptual
from torch import Tensor, nn

import ganloss_fast as gf
from ganloss_fast.diagnose import CountFlops

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def small_critic() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4))


class Trainer:
    """One generator step of a VQGAN: reconstruction with a learned variance, adversarial and
    codebook loss."""

    def __init__(self, tokenizer: Callable[[], nn.Module], dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.tokenizer = tokenizer().to(dtype)
        self.critic, self.perceptual = small_critic().to(dtype), Perceptual().to(dtype)
        self.logvar = nn.Parameter(torch.full((), 0.1, dtype=dtype))
        self.images = torch.rand(2, 3, 16, 16, dtype=dtype)

    def losses(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """nll, adversarial and codebook loss, and the reconstruction."""
        images, latents = self.tokenizer(self.images)
        distance = F.l1_loss(images, self.images) + self.perceptual(images, self.images)
        nll = distance / self.logvar.exp() + self.logvar
        return nll, -self.critic(images).mean(), latents.square().mean(), images

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in (*self.tokenizer.parameters(), self.logvar)]


def norm_ratio(first: Tensor, second: Tensor) -> Tensor:
    """As taming-transformers weighs."""
    return (first.norm() / (second.norm() + 1e-4)).clamp(0.0, 1e4).detach()


def written_out(trainer: Trainer, factor: float = 0.5) -> tuple[Tensor, Tensor]:
    """Two gradients of the last layer, each by way of everything after it, and one backward."""
    nll, g, codebook, _ = trainer.losses()
    last = trainer.tokenizer.last.weight
    (of_nll,) = torch.autograd.grad(nll, last, retain_graph=True)
    (of_g,) = torch.autograd.grad(g, last, retain_graph=True)
    weight = factor * norm_ratio(of_nll, of_g)
    total = nll + weight * g + codebook
    total.backward()
    return weight, total.detach()


def assert_close(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> None:
    """Relative to the largest: in front of a normalisation, true gradients of biases are 0."""
    largest = max(t.norm() for t in theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= tolerance * largest


# ---- the adaptive weight of VQGAN --------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("tokenizer", [ConvTokenizer, PatchTokenizer])
def test_the_step_is_that_of_two_gradients_and_a_backward_of_the_sum(tokenizer, dtype):
    theirs, ours = Trainer(tokenizer, dtype), Trainer(tokenizer, dtype)
    weight, total = written_out(theirs)
    nll, g, codebook, images = ours.losses()
    balance = gf.balanced_backward(
        [nll, g],
        images,
        ours.tokenizer.last.weight,
        weights=[1.0, 0.5],
        extra_loss=codebook,
        loss_parameters=[ours.logvar],
    )
    assert_close(ours.gradients(), theirs.gradients(), TOLERANCE[dtype])
    assert_close(
        [balance.weights, balance.total],
        [torch.stack([torch.ones_like(weight), weight]), total],
        TOLERANCE[dtype],
    )
    assert all(p.grad is None for p in ours.critic.parameters())
    assert not any(t.requires_grad for t in balance[:3])
    assert balance.averages is None


def test_gradients_are_added_to_what_is_there():
    trainer = Trainer(ConvTokenizer, torch.float64)
    single = []
    for _ in range(2):
        nll, g, _, images = trainer.losses()
        gf.balanced_backward([nll, g], images, trainer.tokenizer.last.weight)
        single.append([p.grad.clone() for p in trainer.tokenizer.parameters()])
    assert_close(single[1], [2 * gradient for gradient in single[0]], 1e-13)


@pytest.mark.parametrize("weight", [0.25, torch.tensor(0.25), torch.tensor(0.25).double()])
def test_a_weight_may_be_a_tensor_that_changes_by_the_step(weight):
    trainer = Trainer(ConvTokenizer, torch.float64)
    nll, g, _, images = trainer.losses()
    balance = gf.balanced_backward(
        {"nll": nll, "g": g}, images, trainer.tokenizer.last.weight, weights={"g": weight, "nll": 1}
    )
    last = trainer.tokenizer.last.weight
    nll, g, _, images = trainer.losses()
    ratio = norm_ratio(*(torch.autograd.grad(x, last, retain_graph=True)[0] for x in (nll, g)))
    assert_close([balance.weights[1]], [0.25 * ratio], 1e-12)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (gf.AdaptiveWeight(), lambda a, b: (a / (b + 1e-4)).clamp(0, 1e4)),
        (gf.AdaptiveWeight(largest=0.5), lambda a, b: (a / (b + 1e-4)).clamp(0, 0.5)),
        (
            gf.AdaptiveWeight(epsilon=1e-8, epsilon_as="floor"),
            lambda a, b: (a / b.clamp(min=1e-8)).clamp(max=1e4),
        ),
        (gf.AdaptiveWeight(epsilon=1e3, epsilon_as="floor"), lambda a, b: a / 1e3),
    ],
)
def test_the_ratio_is_bounded_as_the_rule_says(rule, wanted):
    x = torch.randn(2, 3, dtype=torch.float64)
    model = nn.Linear(3, 3).double()
    y = model(x)
    losses = [y.square().mean(), (3 * y).sum()]
    norms = [torch.autograd.grad(x, model.weight, retain_graph=True)[0].norm() for x in losses]
    balance = gf.balanced_backward(losses, y, model.weight, rule=rule)
    assert_close([balance.norms, balance.weights[1]], [torch.stack(norms), wanted(*norms)], 1e-12)


def test_a_single_loss_is_its_own_backward():
    """A trainer before disc_start, when there is no adversarial loss."""
    trainer = Trainer(ConvTokenizer, torch.float64)
    nll, _, codebook, images = trainer.losses()
    balance = gf.balanced_backward(
        [nll], images, trainer.tokenizer.last.weight, extra_loss=codebook
    )
    ours = [p.grad.clone() for p in trainer.tokenizer.parameters()]
    trainer.tokenizer.zero_grad()
    nll, _, codebook, _ = trainer.losses()
    (nll + codebook).backward()
    assert_close(ours, [p.grad for p in trainer.tokenizer.parameters()], 1e-13)
    assert balance.weights.tolist() == [1.0]


def test_a_constant_extra_loss_counts_in_the_total_alone():
    y = nn.Linear(2, 2)(torch.ones(1, 2))
    balance = gf.balanced_backward([y.sum()], y, extra_loss=torch.tensor(7.0))
    assert torch.allclose(balance.total, y.sum() + 7)


# ---- the balancer of EnCodec -------------------------------------------------------------------


def test_shares_of_a_total_norm_are_those_of_the_published_formula():
    """Three steps, so that the averages have a past."""
    torch.manual_seed(0)
    model, x = nn.Linear(5, 5).double(), torch.randn(4, 5, dtype=torch.float64)
    wanted, decay, total_norm = {"l1": 0.1, "adv": 4.0}, 0.9, 1.5
    sums, counts = dict.fromkeys(wanted, 0.0), dict.fromkeys(wanted, 0.0)
    averages = None
    for step in range(3):

        def losses(y, step=step):
            return {"adv": y.square().mean() * (step + 1), "l1": y.abs().mean()}

        y = model(x)
        gradients = {
            name: torch.autograd.grad(loss, y, retain_graph=True)[0]
            for name, loss in losses(y).items()
        }
        combined = torch.zeros_like(y)
        scales = {}
        for name, gradient in gradients.items():
            sums[name] = decay * sums[name] + gradient.norm(dim=1).mean()
            counts[name] = decay * counts[name] + 1
            scales[name] = wanted[name] / 4.1 * total_norm / (1e-12 + sums[name] / counts[name])
            combined += scales[name] * gradient
        (theirs,) = torch.autograd.grad(y, model.weight, combined)

        y, model.weight.grad = model(x), None
        balance = gf.balanced_backward(
            losses(y),
            y,
            weights=wanted,
            rule=gf.GradientShares(total_norm=total_norm, decay=decay),
            averages=averages,
        )
        averages = balance.averages
        assert_close([model.weight.grad], [theirs], 1e-13)
        assert_close([balance.weights], [torch.stack(list(scales.values()))], 1e-13)


def test_norms_of_whole_gradients_may_be_shared_at_the_last_layer():
    model, x = nn.Linear(3, 3).double(), torch.randn(4, 3, dtype=torch.float64)
    y = model(x)
    losses = [y.square().mean(), y.sum()]
    norms = [
        torch.autograd.grad(loss, model.weight, retain_graph=True)[0].norm() for loss in losses
    ]
    rule = gf.GradientShares(per_sample=False)
    balance = gf.balanced_backward(losses, y, model.weight, rule=rule)
    assert_close([balance.weights], [0.5 / torch.stack(norms)], 1e-10)


def test_an_overflow_leaves_the_averages_as_they_were():
    model, x = nn.Linear(3, 3), torch.randn(4, 3)
    rule, averages = gf.GradientShares(), None
    seen = []
    for factor in (1.0, float("inf"), 1.0):
        y = model(x)
        balance = gf.balanced_backward([factor * y.sum()], y, rule=rule, averages=averages)
        averages = balance.averages
        seen.append(averages.means())
    assert torch.equal(seen[0], seen[1])
    assert torch.allclose(seen[0], seen[2])


# ---- how it is trained -------------------------------------------------------------------------


def test_a_grad_scaler_scales_the_backward_and_not_the_norms():
    plain, scaled = (Trainer(ConvTokenizer, torch.float64) for _ in range(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    balances = []
    for trainer, options in ((plain, {}), (scaled, {"scaler": scaler})):
        nll, g, codebook, images = trainer.losses()
        balances.append(
            gf.balanced_backward(
                [nll, g],
                images,
                trainer.tokenizer.last.weight,
                extra_loss=codebook,
                loss_parameters=[trainer.logvar],
                **options,
            )
        )
    assert_close(balances[1][:3], balances[0][:3], 1e-13)
    assert_close(scaled.gradients(), [1024 * g for g in plain.gradients()], 1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_reconstructions_have_norms_in_float32(dtype):
    model, x = nn.Linear(8, 8), torch.randn(4, 8)
    with torch.autocast("cpu", dtype):
        y = model(x)
    losses = [y.float().square().mean(), y.float().abs().mean()]
    balance = gf.balanced_backward(losses, y, model.weight)
    assert balance.weights.dtype == balance.norms.dtype == torch.float32
    assert model.weight.grad.isfinite().all()


def test_the_call_may_stand_inside_of_autocast():
    torch.manual_seed(0)
    model, x = nn.Linear(8, 8), torch.randn(4, 8)
    found = []
    for inside in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x)
            losses = [y.float().square().mean(), y.float().abs().mean()]
            if inside:
                balance = gf.balanced_backward(losses, y, model.weight)
        if not inside:
            balance = gf.balanced_backward(losses, y, model.weight)
        found.append([*balance[:3], model.weight.grad.clone()])
    for a, b in zip(*found):
        assert a.dtype == b.dtype == torch.float32
        assert torch.equal(a, b)


def test_losses_may_share_a_graph():
    """Adversarial and feature matching loss of one discriminator."""
    model, critic = nn.Linear(3, 3).double(), nn.Linear(3, 4).double()
    x = torch.randn(4, 3, dtype=torch.float64)

    def losses():
        y = model(x)
        features = critic(y).tanh()
        return [y.abs().mean(), -features.mean(), features.square().sum()], y

    values, y = losses()
    balance = gf.balanced_backward(values, y)
    ours = model.weight.grad.clone()
    model.weight.grad = None
    values, _ = losses()
    sum(w * loss for w, loss in zip(balance.weights, values)).backward()
    assert_close([ours], [model.weight.grad], 1e-13)


def test_graphs_are_kept_on_request_only():
    for keep in (True, False):
        critic = small_critic()
        y = nn.Conv2d(3, 3, 1)(torch.rand(2, 3, 16, 16))
        logits = critic(y.tanh())
        gf.balanced_backward([y.square().mean(), -logits.mean()], y, retain_graph=keep)
        if keep:
            gf.discriminator_backward(logits.mean(), critic, shares_forward=True)
            assert critic[0].weight.grad is not None
        else:
            with pytest.raises(RuntimeError, match="second time"):
                gf.discriminator_backward(logits.mean(), critic, shares_forward=True)


# ---- what it costs -----------------------------------------------------------------------------

PUBLISHED = {  # in the widths of the public configurations, on the meta device
    "convolutions": (lambda: ConvTokenizer(128, 256, (1, 1, 2, 2, 4)), 1.03, 1.03),
    "transformers": (lambda: PatchTokenizer(768, 12, 16, 12), 1.12, 1.11),
}


@pytest.mark.parametrize(
    ("tokenizer", "gain", "gain_over_frozen"), PUBLISHED.values(), ids=PUBLISHED
)
def test_a_generator_step_takes_fewer_operations(tokenizer, gain, gain_over_frozen):
    with torch.device("meta"):
        model, critic, perceptual = tokenizer(), patchgan(64), Perceptual(64)
        images = torch.empty(1, 3, 256, 256)
    last = model.last.weight

    def losses():
        found, latents = model(images)
        nll = F.l1_loss(found, images) + perceptual(found, images)
        return nll, -critic(found).mean(), latents.square().mean(), found

    def theirs():
        nll, g, codebook, _ = losses()
        weight = norm_ratio(*(torch.autograd.grad(x, last, retain_graph=True)[0] for x in (nll, g)))
        (nll + weight * g + codebook).backward()

    def ours():
        nll, g, codebook, found = losses()
        gf.balanced_backward([nll, g], found, last, extra_loss=codebook)

    def frozen():
        with gf.frozen(critic):
            theirs()

    def flops(step):
        model.zero_grad()
        critic.zero_grad()
        with CountFlops() as counter:
            step()
        return counter.total

    steps = {step: flops(step) for step in (theirs, frozen, ours)}
    assert steps[theirs] / steps[ours] > gain
    assert steps[frozen] / steps[ours] > gain_over_frozen


# ---- a compiled model --------------------------------------------------------------------------


def test_a_compiled_last_layer_is_found_and_an_eager_one_is_right(fresh_compiler):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.last(self.body(x).tanh())

    model, x = Model(), torch.randn(4, 3)

    def step(y):
        model.zero_grad()
        gf.balanced_backward([y.square().mean(), y.sum()], y, model.last.weight)
        return [p.grad.clone() for p in model.parameters()]

    eager = step(model(x))
    whole = torch.compile(model, backend="aot_eager")(x)
    with pytest.warns(UserWarning, match="compile the layers before the last one"):
        step(whole)
    body = torch.compile(lambda x: model.body(x).tanh(), backend="aot_eager")(x)
    assert_close(step(model.last(body)), eager, 1e-6)


def test_it_is_not_for_compiled_code(fresh_compiler):
    def step(x):
        y = model(x)
        gf.balanced_backward([y.sum()], y)
        return y

    model = nn.Linear(2, 2)
    with pytest.raises(Exception, match="outside of the compiled function"):
        torch.compile(step, backend="eager")(torch.ones(1, 2))


# ---- bad input ---------------------------------------------------------------------------------


def model_and_losses():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    hidden = model[:2](torch.randn(4, 3))
    y = model[2](hidden)
    return model, hidden, y


def hooked(y: Tensor) -> Tensor:
    y.register_hook(lambda g: 2 * g)
    return y


BAD = {
    "no loss": (lambda m, h, y: ([], y), {}, ValueError, "at least one loss"),
    "a tensor of losses": (
        lambda m, h, y: (y.sum(), y),
        {},
        TypeError,
        "losses: expected a sequence",
    ),
    "a whole tensor": (
        lambda m, h, y: ([y], y),
        {},
        ValueError,
        r"losses\[0\]: expected a tensor of one",
    ),
    "a number": (lambda m, h, y: ([1.0], y), {}, TypeError, r"losses\[0\]: expected a tensor"),
    "a constant": (
        lambda m, h, y: ([y.sum(), torch.ones(())], y),
        {},
        ValueError,
        r"losses\[1\]: it requires no grad",
    ),
    "a loss of the encoder": (
        lambda m, h, y: ({"nll": y.sum(), "commit": h.sum()}, y),
        {},
        ValueError,
        r"losses\['commit'\]: it does not depend on the reconstruction",
    ),
    "a loss of both": (
        lambda m, h, y: ([y.sum() + h.square().sum()], y),
        {},
        ValueError,
        r"losses\[0\]: it reaches the model beside the reconstruction, by .*extra_loss",
    ),
    "a loss of a weight": (
        lambda m, h, y: ([y.sum() + m[0].weight.sum()], y),
        {},
        ValueError,
        r"a leaf of shape \[3, 3\]",
    ),
    "an earlier reconstruction": (
        lambda m, h, y: ([y.sum()], y.tanh()),
        {},
        ValueError,
        "does not depend on the reconstruction",
    ),
    "a detached reconstruction": (
        lambda m, h, y: ([y.sum()], y.detach()),
        {},
        ValueError,
        "reconstruction: it requires no grad",
    ),
    "a hook": (lambda m, h, y: ([y.sum()], hooked(y)), {}, ValueError, "it has hooks"),
    "too few weights": (lambda m, h, y: ([y.sum()], y), {"weights": []}, ValueError, "expected 1"),
    "a weight by name": (
        lambda m, h, y: ([y.sum()], y),
        {"weights": {"nll": 1.0}},
        TypeError,
        "structured like losses",
    ),
    "a missing weight": (
        lambda m, h, y: ({"nll": y.sum()}, y),
        {"weights": {"g": 1.0}},
        ValueError,
        "none for the loss 'nll'",
    ),
    "no weight at all": (
        lambda m, h, y: ([y.sum()], y),
        {"weights": [0.0], "rule": gf.GradientShares()},
        ValueError,
        "one above 0",
    ),
    "a rule by name": (
        lambda m, h, y: ([y.sum()], y),
        {"rule": "adaptive"},
        TypeError,
        "rule: expected AdaptiveWeight",
    ),
    "the class of a rule": (
        lambda m, h, y: ([y.sum()], y),
        {"rule": gf.GradientShares},
        TypeError,
        r"Create one: GradientShares\(\)",
    ),
    "averages without a rule": (
        lambda m, h, y: ([y.sum()], y),
        {"averages": gf.NormAverages(torch.zeros(1), torch.zeros(1))},
        ValueError,
        "only GradientShares has them",
    ),
    "averages of other losses": (
        lambda m, h, y: ([y.sum()], y),
        {
            "averages": gf.NormAverages(torch.zeros(2), torch.zeros(2)),
            "rule": gf.GradientShares(),
        },
        ValueError,
        "of 2 losses, and this step has 1",
    ),
    "a group": (lambda m, h, y: ([y.sum()], y), {"process_group": 1}, TypeError, "process_group"),
}


@pytest.mark.parametrize(("arguments", "options", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_explained(arguments, options, error, message):
    with pytest.raises(error, match=message):
        gf.balanced_backward(*arguments(*model_and_losses()), **options)


def test_a_last_layer_that_is_none_is_explained():
    model, _, y = model_and_losses()
    with pytest.raises(ValueError, match="last_layer: the reconstruction does not depend on it"):
        gf.balanced_backward([y.sum()], y, nn.Linear(3, 3).weight)
    with pytest.raises(ValueError, match="has no samples"):
        gf.balanced_backward([y.sum()], y, model[2].weight, rule=gf.GradientShares())


def test_reconstructions_of_one_node_are_told_apart():
    """Two halves of a split: the other half is the model beside the reconstruction."""
    first, second = nn.Linear(3, 4)(torch.ones(2, 3)).chunk(2, 1)
    gf.balanced_backward([first.sum()], first, retain_graph=True)
    with pytest.raises(ValueError, match="beside the reconstruction"):
        gf.balanced_backward([first.sum() + second.sum()], first)


def test_nothing_of_the_step_is_left_behind():
    """A critic that is copied, stepped and run again, as trainers do."""
    trainer = Trainer(ConvTokenizer, torch.float64)
    before = copy.deepcopy(trainer.critic.state_dict())
    nll, g, _, images = trainer.losses()
    gf.balanced_backward([nll, g], images, trainer.tokenizer.last.weight)
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), trainer.critic.state_dict().values())
    )
