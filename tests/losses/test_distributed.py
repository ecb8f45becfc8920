"""Two processes with gloo and DistributedDataParallel: their step is that of the joined batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from oracle import assert_close
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, in_two_processes

import ganloss_fast as gf

BATCH = 6  # of one process
AVERAGE_LOSSES = [loss(relativistic="average") for loss in (gf.BCE, gf.Hinge, gf.LeastSquares)]
STEPS = ["critic", "generator"] + [
    f"{loss.name}, {of}" for loss in AVERAGE_LOSSES for of in ("critic", "generator")
]

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
)


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5))
    critic = nn.Sequential(nn.Linear(5, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    return generator.double(), critic.double()


def batch() -> dict[str, Tensor]:
    """The joined batch of all processes."""
    numbers = torch.Generator().manual_seed(1)
    count = WORLD * BATCH
    return {
        "real": torch.randn(count, 5, dtype=torch.float64, generator=numbers),
        "noise": torch.randn(count, 3, dtype=torch.float64, generator=numbers),
        "alpha": torch.rand(count, dtype=torch.float64, generator=numbers),
    }


def critic_step(generator, critic, real: Tensor, noise: Tensor, alpha: Tensor) -> None:
    fake = generator(noise).detach()
    loss = gf.discriminator_loss(critic(real), critic(fake), "wasserstein")
    (loss + gf.gradient_penalty(critic, real, fake, alpha=alpha)).backward()


def generator_step(generator, critic, noise: Tensor) -> None:
    with gf.frozen(critic):
        gf.generator_loss(critic(generator(noise)), "wasserstein").backward()


def average_critic_step(generator, critic, real: Tensor, noise: Tensor, loss, group=None) -> None:
    """Relativistic: the mean logits are those of all processes. Two outputs, unequal weights."""
    real_logits, fake_logits = critic(real), critic(generator(noise).detach())
    gf.discriminator_loss(
        [real_logits, 2 * real_logits],
        [fake_logits, 3 * fake_logits],
        loss,
        fake_weight=0.5,
        process_group=group,
    ).backward()


def average_generator_step(
    generator, critic, real: Tensor, noise: Tensor, loss, group=None
) -> None:
    with gf.frozen(critic):
        gf.generator_loss(
            critic(generator(noise)), loss, real=critic(real), process_group=group
        ).backward()


def gradients(step, of: str, *, generator, critic, **inputs) -> list[Tensor]:
    networks_by_name = {"generator": generator, "critic": critic}
    for network in networks_by_name.values():
        network.zero_grad()
    step(generator, critic, **inputs)
    return [parameter.grad.clone() for parameter in networks_by_name[of].parameters()]


def all_steps(
    generator, critic, real: Tensor, noise: Tensor, alpha: Tensor, group=None
) -> dict[str, list[Tensor]]:
    networks = {"generator": generator, "critic": critic}
    given = {**networks, "real": real, "noise": noise}
    results = {
        "critic": gradients(critic_step, "critic", **given, alpha=alpha),
        "generator": gradients(generator_step, "generator", **networks, noise=noise),
    }
    for loss in AVERAGE_LOSSES:
        options = {**given, "loss": loss, "group": group}
        results[f"{loss.name}, critic"] = gradients(average_critic_step, "critic", **options)
        results[f"{loss.name}, generator"] = gradients(
            average_generator_step, "generator", **options
        )
    return results


def work(rank: int) -> dict[str, list[Tensor]]:
    """The gradients of one process, from its share of the batch."""
    generator, critic = (DistributedDataParallel(network) for network in networks())
    share = {name: t[rank * BATCH : (rank + 1) * BATCH] for name, t in batch().items()}
    return all_steps(generator, critic, **share, group=dist.group.WORLD)


@pytest.fixture(scope="module")
def gradients_of_processes() -> list[dict[str, list[Tensor]]]:
    return in_two_processes(work)


@pytest.mark.parametrize("step", STEPS)
def test_every_process_gets_the_gradients_of_the_joined_batch(gradients_of_processes, step):
    """With gradient penalty, with a frozen critic, and with means over all processes."""
    truth = all_steps(*networks(), **batch())[step]
    for of_one in gradients_of_processes:
        for gradient, expected in zip(of_one[step], truth, strict=True):
            assert_close(gradient, expected, 1e-12)


@pytest.mark.parametrize("step", STEPS)
def test_all_processes_get_the_same_bits(gradients_of_processes, step):
    first, second = (of_one[step] for of_one in gradients_of_processes)
    for x, y in zip(first, second, strict=True):
        assert torch.equal(x, y)


@pytest.fixture
def group_of_one(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def average_loss(group) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda real, fake: gf.discriminator_loss(
        real, fake, gf.BCE(relativistic="average"), process_group=group
    )


def test_means_over_processes_are_differentiable_twice(group_of_one):
    logits = torch.randn(2, 5, dtype=torch.float64).unbind()
    operands = [t.clone().requires_grad_() for t in logits]
    assert torch.autograd.gradcheck(average_loss(group_of_one), operands)
    assert torch.autograd.gradgradcheck(average_loss(group_of_one), operands)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Dynamo, in torch 2.13
def test_means_over_processes_compile(group_of_one):
    real, fake = torch.randn(2, 4, 1).unbind()
    compiled = torch.compile(average_loss(group_of_one), fullgraph=True, backend="aot_eager")
    results = []
    for loss in (compiled, average_loss(None)):
        leaves = [t.clone().requires_grad_() for t in (real, fake)]
        value = loss(*leaves)
        value.backward()
        results.append([value, *(t.grad for t in leaves)])
    for got, expected in zip(*results, strict=True):
        assert_close(got, expected, 1e-6)


def test_only_average_losses_take_a_process_group(group_of_one):
    for loss in ("bce", gf.Hinge(relativistic="paired")):
        with pytest.raises(ValueError, match=r"^process_group: only relativistic='average'"):
            gf.discriminator_loss(torch.zeros(2), torch.zeros(2), loss, process_group=group_of_one)
