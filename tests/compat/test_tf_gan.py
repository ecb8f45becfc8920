"""TF-GAN's losses, restated in plain PyTorch with TensorFlow's weights and reductions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from toolkit_codebases import assert_same
from torch import Tensor, nn

from ganloss_fast.compat import tf_gan

BY_NONZERO = "weighted_sum_by_nonzero_weights"
REDUCTIONS = ("none", "weighted_sum", "weighted_sum_over_batch_size", "weighted_mean", BY_NONZERO)
BOTH = (torch.float32, torch.float64)


def weighted(losses: Tensor, weights: float | Tensor, reduction: str) -> Tensor:
    """tf.compat.v1.losses.compute_weighted_loss."""
    w = torch.as_tensor(weights, dtype=losses.dtype).broadcast_to(losses.shape)
    weighed = losses * w
    if reduction == "none":
        return weighed
    by = {
        "weighted_sum": torch.ones(()),
        "weighted_sum_over_batch_size": torch.tensor(losses.numel()),
        "weighted_mean": w.sum(),
        BY_NONZERO: (w != 0).sum(),
    }[reduction]
    return torch.where(by == 0, 0.0, weighed.sum() / torch.where(by == 0, 1.0, by))


def bce(x: Tensor, label: float, smoothing: float = 0.0) -> Tensor:
    """sigmoid_cross_entropy, which smooths to label (1 - s) + s / 2."""
    target = torch.full_like(x, label * (1 - smoothing) + 0.5 * smoothing)
    return F.binary_cross_entropy_with_logits(x, target, reduction="none")


def sides(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(4, 3, dtype=dtype).requires_grad_() for _ in range(2)]


MAP = torch.tensor([[0.0, 2.0, 1.0], [0.5, 0.0, 0.0], [1.0, 1.0, 3.0], [0.0, 0.0, 1.0]])
WEIGHTS = {
    "number": 0.7,
    "zero": 0.0,
    "0-d": torch.tensor(0.7),
    "rows": torch.tensor([[0.0], [1.0], [2.0], [0.0]]),
    "map": MAP,
    "nothing": torch.zeros(4, 3),
}
DISCRIMINATORS: dict[str, tuple[Callable[..., Tensor], Callable, Callable]] = {
    "wasserstein": (tf_gan.wasserstein_discriminator_loss, lambda r: -r, lambda f: f),
    "hinge": (
        lambda *a, **k: tf_gan.wasserstein_hinge_discriminator_loss(
            *a, real_hinge=0.5, generated_hinge=0.8, **k
        ),
        lambda r: F.relu(0.5 - r),
        lambda f: F.relu(0.8 + f),
    ),
    "minimax": (
        tf_gan.minimax_discriminator_loss,
        lambda r: bce(r, 1.0, 0.25),
        lambda f: bce(f, 0.0),
    ),
    "modified": (
        lambda *a, **k: tf_gan.modified_discriminator_loss(*a, label_smoothing=0.0, **k),
        lambda r: bce(r, 1.0),
        lambda f: bce(f, 0.0),
    ),
    "least squares": (
        lambda *a, **k: tf_gan.least_squares_discriminator_loss(
            *a, real_label=0.9, fake_label=-1, **k
        ),
        lambda r: (r - 0.9) ** 2 / 2,
        lambda f: (f + 1) ** 2 / 2,
    ),
}
GENERATORS: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor], Tensor]]] = {
    "wasserstein": (tf_gan.wasserstein_hinge_generator_loss, lambda f: -f),
    "modified": (
        lambda *a, **k: tf_gan.modified_generator_loss(*a, label_smoothing=0.2, **k),
        lambda f: bce(f, 1.0, 0.2),
    ),
    "minimax": (
        lambda *a, **k: tf_gan.minimax_generator_loss(*a, label_smoothing=0.2, **k),
        lambda f: -bce(torch.ones_like(f), 1.0, 0.2) - bce(f, 0.0),
    ),
    "least squares": (tf_gan.least_squares_generator_loss, lambda f: (f - 1) ** 2 / 2),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator_losses(name, weights, reduction):
    ours, of_real, of_fake = DISCRIMINATORS[name]
    inputs = r, f = sides()
    w = WEIGHTS[weights]
    mine = ours(r, f, real_weights=w, generated_weights=0.4, reduction=reduction)
    plain = weighted(of_real(r), w, reduction) + weighted(of_fake(f), 0.4, reduction)
    assert_same(mine, plain, inputs)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", GENERATORS)
def test_generator_losses(name, weights, reduction):
    ours, of_fake = GENERATORS[name]
    (f, _), w = sides(), WEIGHTS[weights]
    plain = weighted(of_fake(f), w, reduction)
    if name == "minimax":  # two losses, each weighted
        constant = weighted(-bce(torch.ones_like(f), 1.0, 0.2), w, reduction)
        plain = constant + weighted(-bce(f, 0.0), w, reduction)
    assert_same(ours(f, weights=w, reduction=reduction), plain, [f])


@pytest.mark.parametrize("name", [*DISCRIMINATORS])
def test_single_precision(name):
    ours, of_real, of_fake = DISCRIMINATORS[name]
    inputs = r, f = sides(torch.float32)
    assert_same(ours(r, f), of_real(r).mean() + of_fake(f).mean(), inputs)


def test_defaults_are_tf_gans():
    """Smoothing to 0.875 is on in the discriminator, and off in the generator."""
    r, f = sides()
    ours = tf_gan.modified_discriminator_loss(r, f)
    target = torch.full_like(r, 0.875)
    plain = F.binary_cross_entropy_with_logits(r, target) + F.softplus(f).mean()
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(tf_gan.modified_generator_loss(f), F.softplus(-f).mean())
    constant = F.softplus(torch.tensor(-1.0, dtype=torch.float64))
    torch.testing.assert_close(tf_gan.minimax_generator_loss(f), -constant - F.softplus(f).mean())


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize(
    ("weights", "reduction"),
    [(1.0, BY_NONZERO), (0.5, "none"), (torch.tensor([0.0, 1.0, 0.0, 3.0]), BY_NONZERO)],
)
def test_gradient_penalty(weights, reduction, one_sided, dtype):
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    inputs = [p for p in critic.parameters() if p.dim() == 2]
    real, fake, z = torch.randn(3, 4, 3, dtype=dtype)

    def discriminator(x, noise):
        return critic(x + noise), "class logits"

    torch.manual_seed(3)
    ours = tf_gan.wasserstein_gradient_penalty(
        real, fake, z, discriminator, None, 1e-4, 0.7, one_sided, weights, reduction
    )
    torch.manual_seed(3)
    alpha = torch.rand(4).to(dtype)[:, None]
    x = (real + alpha * (fake - real)).requires_grad_()
    (g,) = torch.autograd.grad(critic(x + z).sum(), x, create_graph=True)
    excess = (g.square().sum(1) + 1e-4).sqrt() / 0.7 - 1
    excess = excess.clamp(min=0) if one_sided else excess
    plain = weighted(excess.square(), weights, reduction)
    torch.testing.assert_close(ours, plain)
    along = torch.ones_like(plain)
    mine = torch.autograd.grad(ours, inputs, along)
    for a, b in zip(mine, torch.autograd.grad(plain, inputs, along)):
        torch.testing.assert_close(a, b)


def test_classes_codes_and_cycles():
    r, f = sides()
    labels = F.one_hot(torch.tensor([0, 2, 1, 1]), 3)

    def softmax(x: Tensor, smoothing: float = 0.0) -> Tensor:
        return -((labels * (1 - smoothing) + smoothing / 3) * x.log_softmax(1)).sum(1)

    ours = tf_gan.acgan_discriminator_loss(r, f, labels, 0.3, real_weights=0.5)
    assert_same(ours, 0.5 * softmax(r, 0.3).mean() + softmax(f).mean(), [r, f])
    assert_same(tf_gan.acgan_generator_loss(f, labels), softmax(f).mean(), [f])
    mean = torch.zeros(3, requires_grad=True)
    normal = torch.distributions.Normal(mean, 1.0)
    codes = [*torch.randn(2, 4, 3)]
    plain = -torch.stack([normal.log_prob(c).mean() for c in codes]).mean()
    assert_same(tf_gan.mutual_information_penalty(codes, [normal] * 2), plain, [mean])
    x, y = sides()
    ours = tf_gan.cycle_consistency_loss(r.detach(), x, f.detach(), y)
    assert_same(ours, (F.l1_loss(x, r.detach()) + F.l1_loss(y, f.detach())) / 2, [x, y])


def test_combined_losses():
    weight = torch.randn(3, dtype=torch.float64, requires_grad=True)
    main, adversarial = losses = weight.square().sum(), weight.sin().sum()
    options = {"gradient_ratio": 2.0, "variables": [weight]}
    ours = tf_gan.combine_adversarial_loss(main, adversarial, **options)
    norms = [torch.autograd.grad(one, weight, retain_graph=True)[0].norm() for one in losses]
    plain = main + norms[0] / (norms[1] + 1e-6) / 2 * adversarial
    assert_same(ours, plain, [weight])
    ours = tf_gan.combine_adversarial_loss(main, adversarial, weight_factor=0.3)
    assert_same(ours, main + 0.3 * adversarial, [weight])
    assert tf_gan.combine_adversarial_loss(main, adversarial, weight_factor=0) is main
    rows = torch.randn(4, 3), torch.randn(4)
    ours = tf_gan.combine_adversarial_loss(*rows, weight_factor=2.0)
    torch.testing.assert_close(ours, rows[0].mean(1) + 2 * rows[1])


def test_fifty_steps_are_those_of_the_plain_form():
    def trained(step) -> Tensor:
        torch.manual_seed(4)
        critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
        for k in range(50):
            torch.manual_seed(k)
            real, fake = torch.randn(2, 8, 3) + torch.tensor([1.0, 0.0]).view(2, 1, 1)
            optimizer.zero_grad()
            step(critic, real, fake).backward()
            optimizer.step()
        return nn.utils.parameters_to_vector(critic.parameters())

    def ours(critic, real, fake):
        penalty = tf_gan.wasserstein_gradient_penalty(
            real, fake, None, lambda x, _: critic(x), None
        )
        return tf_gan.modified_discriminator_loss(critic(real), critic(fake)) + 10 * penalty

    def plain(critic, real, fake):
        x = (real + torch.rand(8)[:, None] * (fake - real)).requires_grad_()
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        penalty = ((g.square().sum(1) + 1e-10).sqrt() - 1).square().mean()
        loss = bce(critic(real), 1.0, 0.25).mean() + bce(critic(fake), 0.0).mean()
        return loss + 10 * penalty

    torch.testing.assert_close(trained(ours), trained(plain), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, f: tf_gan.wasserstein_generator_loss(f, reduction="mean"), "reduction"),
        (lambda r, f: tf_gan.wasserstein_generator_loss(f, torch.ones(4)), "weights"),
        (lambda r, f: tf_gan.wasserstein_generator_loss(f, "1"), "weights"),
        (lambda r, f: tf_gan.modified_discriminator_loss(r, None), "discriminator_gen_outputs"),
        (
            lambda r, f: tf_gan.wasserstein_discriminator_loss(r, f[:2], reduction="none"),
            "expected the shape",
        ),
        (lambda r, f: tf_gan.combine_adversarial_loss(r, f), "weight_factor"),
        (lambda r, f: tf_gan.combine_adversarial_loss(r, f, gradient_ratio=1.0), "variables"),
        (lambda r, f: tf_gan.mutual_information_penalty([r], []), "predicted_distributions"),
        (lambda r, f: tf_gan.cycle_consistency_loss(r, f[:2], r, f), "reconstructed_data_x"),
    ],
)
def test_wrong_calls_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(*sides())
