"""torchgan's losses, restated in plain PyTorch: values, gradients, and fifty training steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from toolkit_codebases import assert_same
from torch import Tensor, nn

from ganloss_fast.compat import torchgan

REDUCE = {"mean": torch.mean, "sum": torch.sum, "none": lambda x: x}
BOTH = (torch.float32, torch.float64)


def leaves(count: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(4, 1, 2, 2, dtype=dtype).requires_grad_() for _ in range(count)]


def bce(x: Tensor, target: float, reduction: str) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, torch.full_like(x, target), reduction=reduction)


ONE_SIDED: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "nonsaturating": (
        lambda x, how: torchgan.minimax_generator_loss(x, True, how),
        lambda x, how: bce(x, 1.0, how),
    ),
    "saturating": (
        lambda x, how: torchgan.minimax_generator_loss(x, False, how),
        lambda x, how: -bce(x, 0.0, how),
    ),
    "least squares": (
        lambda x, how: torchgan.least_squares_generator_loss(x, 0.7, how),
        lambda x, how: 0.5 * REDUCE[how]((x - 0.7) ** 2),
    ),
    "wasserstein": (torchgan.wasserstein_generator_loss, lambda x, how: REDUCE[how](-x)),
    "energy": (torchgan.energy_based_generator_loss, lambda x, how: REDUCE[how](x)),
    "began": (torchgan.boundary_equilibrium_generator_loss, lambda x, how: REDUCE[how](x)),
}
TWO_SIDED: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "minimax": (
        lambda r, f, how: torchgan.minimax_discriminator_loss(r, f, 0.2, how),
        lambda r, f, how: bce(r, 0.8, how) + bce(f, 0.0, how),
    ),
    "least squares": (
        lambda r, f, how: torchgan.least_squares_discriminator_loss(r, f, -0.3, 0.9, how),
        lambda r, f, how: 0.5 * (REDUCE[how]((r - 0.9) ** 2) + REDUCE[how]((f + 0.3) ** 2)),
    ),
    "wasserstein": (
        torchgan.wasserstein_discriminator_loss,
        lambda r, f, how: REDUCE[how](f - r),
    ),
    "energy": (
        lambda r, f, how: torchgan.energy_based_discriminator_loss(r, f, 0.6, how),
        lambda r, f, how: REDUCE[how](r + F.relu(0.6 - f)),
    ),
}


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("how", REDUCE)
@pytest.mark.parametrize("name", ONE_SIDED)
def test_generator_losses(name, how, dtype):
    ours, plain = ONE_SIDED[name]
    (x,) = leaves(1, dtype)
    assert_same(ours(x, how), plain(x, how), [x])


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("how", REDUCE)
@pytest.mark.parametrize("name", TWO_SIDED)
def test_discriminator_losses(name, how, dtype):
    ours, plain = TWO_SIDED[name]
    inputs = leaves(2, dtype)
    assert_same(ours(*inputs, how), plain(*inputs, how), inputs)


@pytest.mark.parametrize("how", REDUCE)
def test_boundary_equilibrium_returns_three(how):
    inputs = r, f = leaves(2)
    ours = torchgan.boundary_equilibrium_discriminator_loss(r, f, 0.4, how)
    plain = (REDUCE[how](r) - 0.4 * REDUCE[how](f), REDUCE[how](r), REDUCE[how](f))
    for mine, right in zip(ours, plain):
        assert_same(mine, right, inputs)


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("how", REDUCE)
def test_penalties_take_one_norm_for_the_batch(how, dtype):
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    weights = [p for p in critic.parameters() if p.dim() == 2]
    x = torch.randn(5, 3, dtype=dtype, requires_grad=True)

    def plain(k: float) -> Tensor:
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        return (g.norm(2) - k) ** 2

    ours = torchgan.dragan_gradient_penalty(x, critic(x), 0.5, how)
    assert_same(ours, plain(0.5), weights)
    assert_same(torchgan.wasserstein_gradient_penalty(x, critic(x), how), plain(1.0), weights)


def test_the_others():
    (x,) = leaves(1)
    rows = F.normalize(x, p=2, dim=0).view(4, -1)
    plain = (rows @ rows.T).square().sum() / 12
    assert_same(torchgan.energy_based_pulling_away_term(x), plain, [x])
    logits, labels = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 2, 1, 1])
    ours = torchgan.auxiliary_classification_loss(logits, labels, "sum")
    assert_same(ours, F.cross_entropy(logits, labels, reduction="sum"), [logits])
    mean = torch.zeros(3, requires_grad=True)
    normal = torch.distributions.Normal(mean, 1.0)
    codes = torch.randn(2, 4, 3)
    ours = torchgan.mutual_information_penalty(*codes, normal, normal)
    plain = -torch.stack([normal.log_prob(c).mean() for c in codes]).mean()
    assert_same(ours, plain, [mean])  # whose gradient torchgan loses


# ---- train_ops ---------------------------------------------------------------------------------


class Generator(nn.Module):
    encoding_dims, num_classes = 3, 4

    def __init__(self, label_type: str) -> None:
        super().__init__()
        self.label_type = label_type
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(z) + (0 if labels is None else labels[:, None].float())


class Discriminator(nn.Module):
    def __init__(self, label_type: str) -> None:
        super().__init__()
        self.label_type = label_type
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(x) * (1 if labels is None else 1 + labels[:, None])


def plain_generator_step(loss, g, d, optimizer, labels, batch):
    z = torch.randn(batch, 3)
    optimizer.zero_grad()
    drawn = torch.randint(0, 4, (batch,)) if g.label_type == "generated" else labels
    fake = g(z) if g.label_type == "none" else g(z, drawn)
    value = loss(d(fake) if d.label_type == "none" else d(fake, drawn))
    value.backward()
    optimizer.step()
    return value.item()


def plain_discriminator_step(loss, g, d, optimizer, real, labels):
    z = torch.randn(len(real), 3)
    drawn = torch.randint(0, 4, (len(real),)) if g.label_type == "generated" else labels
    optimizer.zero_grad()
    dx = {
        "none": lambda: d(real),
        "required": lambda: d(real, labels),
        "generated": lambda: d(real, drawn),
    }[d.label_type]()
    fake = (g(z) if g.label_type == "none" else g(z, drawn)).detach()
    value = loss(dx, d(fake) if d.label_type == "none" else d(fake, drawn))
    value.backward()
    optimizer.step()
    return value.item()


def plain_penalty_step(points, g, d, optimizer, k):
    """Of an unconditional pair, with lambda 10."""
    optimizer.zero_grad()
    x = points()
    (gradient,) = torch.autograd.grad(d(x).sum(), x, create_graph=True)
    penalty = (gradient.norm(2) - k) ** 2
    (10 * penalty).backward()
    optimizer.step()
    return penalty.item()


def train(steps: Callable[..., list[float]], g_labels="none", d_labels="none", seed=5):
    torch.manual_seed(seed)
    g, d = Generator(g_labels), Discriminator(d_labels)
    optimizers = [torch.optim.Adam(m.parameters(), 1e-2) for m in (g, d)]
    values = []
    for step in range(50):
        torch.manual_seed(step)
        real, labels = torch.randn(6, 2), torch.randint(0, 4, (6,))
        torch.manual_seed(1000 + step)
        values.append(steps(g, d, *optimizers, real, labels))
    vector = nn.utils.parameters_to_vector([*g.parameters(), *d.parameters()])
    return torch.tensor(values), vector


def assert_trained_alike(ours, plain, **labels):
    for mine, right in zip(train(ours, **labels), train(plain, **labels)):
        torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("g_labels", "d_labels"),
    [
        ("none", "none"),
        ("required", "required"),
        ("generated", "generated"),
        ("generated", "none"),
        ("generated", "required"),
    ],
)
def test_fifty_steps_of_train_ops(g_labels, d_labels):
    d_loss, g_loss = torchgan.MinimaxDiscriminatorLoss(0.1), torchgan.MinimaxGeneratorLoss()

    def ours(g, d, g_optimizer, d_optimizer, real, labels):
        return [
            d_loss.train_ops(g, d, d_optimizer, real, "cpu", labels),
            g_loss.train_ops(g, d, g_optimizer, "cpu", 6, labels),
        ]

    def plain(g, d, g_optimizer, d_optimizer, real, labels):
        def judge(r, f):
            return bce(r, 0.9, "mean") + bce(f, 0.0, "mean")

        return [
            plain_discriminator_step(judge, g, d, d_optimizer, real, labels),
            plain_generator_step(lambda f: bce(f, 1.0, "mean"), g, d, g_optimizer, labels, 6),
        ]

    assert_trained_alike(ours, plain, g_labels=g_labels, d_labels=d_labels)


def test_fifty_steps_of_wasserstein_with_both_penalties_and_clipping():
    losses = (
        torchgan.WassersteinDiscriminatorLoss(clip=(-0.3, 0.3)),
        torchgan.WassersteinGradientPenalty(),
        torchgan.DraganGradientPenalty(k=0.5),
    )

    def ours(g, d, g_optimizer, d_optimizer, real, labels):
        values = [loss.train_ops(g, d, d_optimizer, real, "cpu") for loss in losses]
        return [*values, torchgan.WassersteinGeneratorLoss().train_ops(g, d, g_optimizer, "cpu", 6)]

    def plain(g, d, g_optimizer, d_optimizer, real, labels):
        for p in d.parameters():
            p.data.clamp_(-0.3, 0.3)
        first = plain_discriminator_step(lambda r, f: (f - r).mean(), g, d, d_optimizer, real, None)

        def mixed():
            fake = g(torch.randn(6, 3))  # torchgan leaves the graph to the generator
            share = torch.rand(1).item()
            return share * real + (1 - share) * fake

        def around():
            alpha, beta = torch.rand(6, 2, requires_grad=True), torch.rand(6, 2, requires_grad=True)
            return real + (1 - alpha) * 0.5 * real.std() * beta

        return [
            first,
            plain_penalty_step(mixed, g, d, d_optimizer, 1.0),
            plain_penalty_step(around, g, d, d_optimizer, 0.5),
            plain_generator_step(lambda f: -f.mean(), g, d, g_optimizer, None, 6),
        ]

    assert_trained_alike(ours, plain)


def test_fifty_steps_of_began():
    def run(loss_of):
        return lambda g, d, g_opt, d_opt, real, labels: loss_of(g, d, g_opt, d_opt, real)

    balance = torchgan.BoundaryEquilibriumDiscriminatorLoss(lambd=0.1)
    state = {"k": 0.0}

    def ours(g, d, g_optimizer, d_optimizer, real):
        g_loss = torchgan.BoundaryEquilibriumGeneratorLoss()
        return [
            balance.train_ops(g, d, d_optimizer, real, "cpu"),
            g_loss.train_ops(g, d, g_optimizer, "cpu", 6),
            balance.k,
        ]

    def plain(g, d, g_optimizer, d_optimizer, real):
        found = {}

        def judge(r, f):
            found["r"], found["f"] = r.mean().item(), f.mean().item()
            return r.mean() - state["k"] * f.mean()

        value = plain_discriminator_step(judge, g, d, d_optimizer, real, None)
        state["k"] = min(max(state["k"] + 0.1 * (0.75 * found["r"] - found["f"]), 0.0), 1.0)
        other = plain_generator_step(lambda f: f.mean(), g, d, g_optimizer, None, 6)
        return [value, other, state["k"]]

    assert_trained_alike(run(ours), run(plain))
    assert balance.convergence_metric is not None


def test_a_step_may_be_replaced_and_arguments_renamed():
    seen = []
    g, d = Generator("none"), Discriminator("none")
    for make, count in (
        (torchgan.MinimaxGeneratorLoss, 6),
        (torchgan.MinimaxDiscriminatorLoss, 7),
        (torchgan.WassersteinDiscriminatorLoss, 6),
        (torchgan.WassersteinGradientPenalty, 6),
    ):
        loss = make(override_train_ops=lambda *arguments: seen.append(len(arguments)))
        loss.train_ops(g, d, None, torch.zeros(2, 2), "cpu", None)
        assert seen.pop() == count
        loss.set_arg_map({"gen": "generator"})
        assert loss.arg_map == {"gen": "generator"}


def test_an_auto_encoding_discriminator_leaves_its_embeddings_out():
    g, d = Generator("none"), Discriminator("none")
    d.embeddings = True
    d.register_forward_hook(lambda m, args, y: (y, y) if m.embeddings else y)
    optimizer = torch.optim.SGD(d.parameters(), 0.1)
    loss = torchgan.EnergyBasedDiscriminatorLoss(margin=1.0)
    assert loss.train_ops(g, d, optimizer, torch.zeros(2, 2), "cpu", 2) > 0
    assert d.embeddings
    optimizer = torch.optim.SGD(g.parameters(), 0.1)
    torchgan.EnergyBasedGeneratorLoss().train_ops(g, d, optimizer, "cpu", 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, f: torchgan.wasserstein_discriminator_loss(r, f[:2]), "fgz: expected the shape"),
        (lambda r, f: torchgan.minimax_generator_loss(f, reduction="batchmean"), "reduction"),
        (lambda r, f: torchgan.dragan_gradient_penalty(r, f, 1.0, "max"), "reduction"),
        (lambda r, f: torchgan.minimax_discriminator_loss(r, None), "dgz"),
        (lambda r, f: torchgan.energy_based_generator_loss(f.long()), "dgz"),
    ],
)
def test_wrong_calls_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(*leaves(2))


def test_missing_labels_are_named():
    g, d = Generator("required"), Discriminator("none")
    with pytest.raises(ValueError, match="labels"):
        torchgan.MinimaxDiscriminatorLoss().train_ops(g, d, None, torch.zeros(2, 2), "cpu")
