"""Two processes under DistributedDataParallel, with a loss whose means run over both.

    python -m examples.data_parallel --losses fast --picture two.png

A relativistic average compares every image with the mean of the other side. Each process sees half
of the batch: with ``process_group`` the means are those of all of it, and carry gradients across.
R1 is taken of the logits that the loss has already.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import ganloss_fast as gf
from demo.networks import LATENT_SIZE, build_critic, build_generator
from examples import setting

WORLD, GAMMA = 2, 1.0


class MeanOfAll(torch.autograd.Function):
    """The mean over all processes, with a gradient to each of them."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total / WORLD

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return MeanOfAll.forward(ctx, gradient)


class Reference:
    """As people write it who remember the mean."""

    def relativistic(self, up: Tensor, down: Tensor) -> Tensor:
        """The ones are to lie above the mean of the others, and these below theirs."""
        mean_up, mean_down = MeanOfAll.apply(torch.stack([up.mean(), down.mean()]))
        return F.softplus(-(up - mean_down)).mean() + F.softplus(down - mean_up).mean()

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real_logits, fake_logits = critic(real), critic(fake)
        loss = self.relativistic(real_logits, fake_logits)
        (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
        loss = loss + GAMMA / 2 * gradient.square().sum([1, 2, 3]).mean()
        loss.backward()
        return loss

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor:
        with torch.no_grad():
            real_logits = critic(real)
        loss = self.relativistic(critic(fake), real_logits)
        loss.backward()
        return loss


class Fast:
    loss = gf.BCE(relativistic="average")

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real_logits, fake_logits = critic(real), critic(fake)
        loss = gf.discriminator_loss(
            real_logits, fake_logits, self.loss, process_group=dist.group.WORLD
        )
        loss = loss + gf.penalty_from_logits(real_logits, real, gf.R1(GAMMA))
        loss.backward()
        return loss

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor:
        with torch.no_grad():
            real_logits = critic(real)
        loss = gf.generator_loss(
            critic(fake), self.loss, real=real_logits, process_group=dist.group.WORLD
        )
        gf.generator_backward(loss, generator)  # no weight gradients of the critic
        return loss


def train(rank: int, options: Namespace, meeting_point: str, log: setting.Log) -> nn.Module:
    """One of the processes; it draws its own half of every batch."""
    dist.init_process_group(
        "gloo",
        init_method=meeting_point,
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    losses = {"reference": Reference, "fast": Fast}[options.losses]()
    crops = setting.photographs(options.size)
    critic = DistributedDataParallel(build_critic(options.size, 32))
    generator = DistributedDataParallel(build_generator(options.size, 32))
    to_critic = torch.optim.Adam(critic.parameters(), 5e-4, betas=(0.0, 0.99))
    to_generator = torch.optim.Adam(generator.parameters(), 5e-4, betas=(0.0, 0.99))
    torch.manual_seed(options.seed + 1 + rank)

    for _ in range(options.steps):
        real = setting.draw(crops, options.batch // WORLD).requires_grad_()
        fake = generator(torch.randn(options.batch // WORLD, LATENT_SIZE))
        to_critic.zero_grad()
        critic_loss = losses.critic_backward(critic, real, fake.detach())
        to_critic.step()

        to_generator.zero_grad()
        judge = critic.module  # its gradients are nobody's: nothing to average
        generator_loss = losses.generator_backward(judge, generator, real.detach(), fake)
        to_generator.step()
        log.add(critic=critic_loss, generator=generator_loss)
    dist.destroy_process_group()
    return generator.module


def start(arguments: Sequence[str] | None) -> Namespace:
    return setting.start(setting.parser(__doc__, steps=200, batch=32, size=32), arguments)


def join(rank: int, arguments: Sequence[str] | None, meeting_point: str) -> None:
    """What another process runs beside this one."""
    options = start(arguments)
    torch.set_num_threads(1)
    train(rank, options, meeting_point, setting.Log(options.steps, silent=True))


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    options = start(arguments)
    log = setting.Log(options.steps)
    with tempfile.TemporaryDirectory() as folder:
        meeting_point = (Path(folder) / "meeting-point").as_uri()
        other = mp.get_context("spawn").Process(
            target=join, args=(1, arguments, meeting_point), daemon=True
        )
        other.start()
        generator = train(0, options, meeting_point, log)
        other.join()

    panels = {
        "photographs": setting.images(setting.draw(setting.photographs(options.size), 64)),
        "generated": setting.images(generator(torch.randn(64, LATENT_SIZE))),
    }
    log.draw(options.picture, f"two processes, {options.steps} steps, {options.losses}", panels)
    return log


if __name__ == "__main__":
    main()
