"""Penalties on critics wrapped by FSDP and DDP(static_graph=True): refused, or right."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, in_two_processes

import ganloss_fast as gf

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def sharded(critic: nn.Module, parts: bool = False) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORLD,))
    for module in (critic[0],) if parts else (critic[0], critic[2], critic):
        fully_shard(module, mesh=mesh)
    return critic


def sharded_by_the_first_fsdp(critic: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(critic, device_id=torch.device("cpu"))


WRAPPERS = {
    "fully_shard": sharded,
    "a part, fully_shard": lambda critic: sharded(critic, parts=True),
    "FSDP": sharded_by_the_first_fsdp,
    "static graph": lambda critic: DistributedDataParallel(critic, static_graph=True),
}
EXACT = {
    "r1": lambda c, x: gf.r1_penalty(c, x),
    "gradient": lambda c, x: gf.gradient_penalty(c, x, -x),
    "lambda": lambda c, x: gf.r1_penalty(lambda z: c(z), x),
    "slices": lambda c, x: gf.r1_penalty(c, x, how=gf.Differentiation(chunk_size=2)),
    "diagnose": lambda c, x: gf.diagnose(c, x, quiet=True),
    "logits": lambda c, x: gf.penalty_from_logits(c(x.requires_grad_()), x),
    "approximate, slices": lambda c, x: gf.approximate_r1_penalty(c, x, chunk_size=2),
}


def batch(rank: int) -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(rank))


def approximate(critic: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return gf.approximate_r1_penalty(critic, x, 0.1, seed=torch.tensor(4))


def work(rank: int) -> tuple[dict, dict]:
    said = {}
    for wrapper, wrap in WRAPPERS.items():
        for name, penalise in EXACT.items():
            try:
                penalise(wrap(make()), batch(rank))
                said[wrapper, name] = "nothing"
            except Exception as error:
                said[wrapper, name] = f"{type(error).__name__}: {error}"
    gradients = {}
    for wrapper in ("fully_shard", "a part, fully_shard"):
        critic = WRAPPERS[wrapper](make())
        approximate(critic, batch(rank)).backward()
        gradients[wrapper] = []
        for p in critic.parameters():
            whole = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
            gradients[wrapper].append(whole)
    # A generator may be sharded where the critic is not.
    generator, critic = sharded(make()), nn.Linear(1, 1)
    latents = torch.randn(6, 4, requires_grad=True)
    gf.r2_penalty(nn.Sequential(critic, nn.Tanh()), generator(latents)).backward()
    said["generator"] = str(latents.grad is not None)
    return said, gradients


@pytest.fixture(scope="module")
def results() -> list[tuple[dict, dict]]:
    return in_two_processes(work)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_that_would_lose_gradients_is_refused_by_name(results, wrapper, name):
    for said, _ in results:
        assert said[wrapper, name].startswith("WrappedCriticError: ")
        assert ("static_graph" if wrapper == "static graph" else "FSDP") in said[wrapper, name]


def test_a_sharded_generator_does_not_matter(results):
    for said, _ in results:
        assert said["generator"] == "True"


@pytest.mark.parametrize("wrapper", ["fully_shard", "a part, fully_shard"])
def test_the_approximated_penalty_is_right_under_fsdp(results, wrapper):
    """Sharded parameters get the mean over the processes; the others each process's own."""
    alone = []
    for rank in range(WORLD):
        critic = make().double()
        x = batch(rank)
        moved = gf.perturb(x, 0.1, torch.tensor(4)).double()
        (100 * (critic(x.double()) - critic(moved)).square().mean()).backward()
        alone.append([p.grad for p in critic.parameters()])
    for rank, (_, gradients) in enumerate(results):
        for k, (ours, own, *_) in enumerate(zip(gradients[wrapper], alone[rank], strict=True)):
            is_sharded = wrapper == "fully_shard" or k < 2
            wanted = (alone[0][k] + alone[1][k]) / 2 if is_sharded else own
            assert torch.allclose(ours.double(), wanted, rtol=1e-4, atol=1e-5)
