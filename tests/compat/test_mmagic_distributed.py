"""mmagic's path length with a common mean: two processes, gloo."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from two_processes import WORLD, in_two_processes

from ganloss_fast.compat import mmagic

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")

DECAY, MEAN = 0.3, 0.4
KEYS = {"generator": "gen", "num_batches": "batch_size"}


class Generator(torch.nn.Module):
    """Other latents in every process."""

    def __init__(self, rank):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        generator = torch.Generator().manual_seed(rank)
        self.latents = torch.randn(4, 3, 8, generator=generator, dtype=torch.float64)

    def forward(self, noise, num_batches, return_latents):
        latents = self.latents.clone().requires_grad_()
        images = (self.weight * latents.square().sum(1)).view(-1, 2, 2, 2) * latents.mean()
        return {"fake_img": images, "latent": latents}


def as_published(generator):
    """The mean is reduced in place, in front of the penalty, and autograd sees nothing of that."""
    outputs = generator(None, num_batches=4, return_latents=True)
    images, latents = outputs["fake_img"], outputs["latent"]
    noise = torch.randn_like(images) / math.sqrt(4)
    (g,) = torch.autograd.grad((images * noise).sum(), latents, create_graph=True)
    lengths = g.square().sum(2).mean(1).sqrt()
    mean = MEAN + DECAY * (lengths.mean() - MEAN)
    if dist.is_initialized():
        dist.all_reduce(mean.data)  # without it autograd warns that it sees nothing
        mean = mean / WORLD
    return 2 * (lengths - mean).square().mean(), mean.detach(), lengths.detach()


def ours(generator, **options):
    mean = torch.tensor(MEAN, dtype=torch.float64)
    options = {"sync_mean_buffer": True, **options}
    return mmagic.gen_path_regularizer(generator, 4, mean, decay=DECAY, weight=2.0, **options)


def of_module(generator):
    loss = mmagic.GeneratorPathRegularizerComps(
        2.0, decay=DECAY, sync_mean_buffer=True, data_info=KEYS
    ).double()
    loss.mean_path_length.fill_(MEAN)
    penalty = loss({"gen": generator, "batch_size": 4})
    return penalty, loss.mean_path_length


def apart(generator):
    return ours(generator, sync_mean_buffer=False)


def results_of(function, rank):
    generator = Generator(rank)
    torch.manual_seed(rank)
    penalty, *others = function(generator)
    (gradient,) = torch.autograd.grad(penalty, generator.weight)
    return penalty.detach(), gradient, *others


def work(rank):
    return [results_of(function, rank) for function in (as_published, ours, of_module, apart)]


@pytest.fixture(scope="module")
def results():
    return in_two_processes(work)


def test_the_penalty_is_about_the_mean_of_all_processes(results):
    for published, found, of_dict, _ in results:
        torch.testing.assert_close(found, published, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(of_dict[:3], published[:3], rtol=1e-12, atol=1e-12)
    assert torch.equal(results[0][1][2], results[1][1][2])


def test_without_being_asked_every_process_has_its_own(results):
    for rank, (*_, found) in enumerate(results):
        torch.testing.assert_close(found, results_of(as_published, rank), rtol=1e-12, atol=1e-12)
    assert not torch.equal(results[0][3][2], results[1][3][2])
