"""Two processes with gloo and DistributedDataParallel: their step is that of the joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from oracle import assert_close
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import ganloss_fast as gf

WORLD = 2
BATCH = 6  # of one process

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


def gradients(step, of: str, *, generator, critic, **inputs: Tensor) -> list[Tensor]:
    networks_by_name = {"generator": generator, "critic": critic}
    for network in networks_by_name.values():
        network.zero_grad()
    step(generator, critic, **inputs)
    return [parameter.grad.clone() for parameter in networks_by_name[of].parameters()]


def both_steps(generator, critic, real: Tensor, noise: Tensor, alpha: Tensor) -> list[Tensor]:
    given = {"generator": generator, "critic": critic}
    of_critic = gradients(critic_step, "critic", **given, real=real, noise=noise, alpha=alpha)
    return of_critic + gradients(generator_step, "generator", **given, noise=noise)


def work(rank: int, folder: Path) -> None:
    """What one process does: its share of the batch, and its gradients to a file."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    generator, critic = (DistributedDataParallel(network) for network in networks())
    share = {name: t[rank * BATCH : (rank + 1) * BATCH] for name, t in batch().items()}
    torch.save(both_steps(generator, critic, **share), folder / f"gradients-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def gradients_of_processes(tmp_path_factory) -> list[list[Tensor]]:
    folder = tmp_path_factory.mktemp("distributed")
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            env={**os.environ, "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"gradients-{rank}.pt") for rank in range(WORLD)]


def test_every_process_gets_the_gradients_of_the_joined_batch(gradients_of_processes):
    """One critic step with gradient penalty, and one generator step with a frozen critic."""
    truth = both_steps(*networks(), **batch())
    for of_one in gradients_of_processes:
        for gradient, expected in zip(of_one, truth, strict=True):
            assert_close(gradient, expected, 1e-12)


def test_all_processes_get_the_same_bits(gradients_of_processes):
    first, second = gradients_of_processes
    for x, y in zip(first, second, strict=True):
        assert torch.equal(x, y)


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
