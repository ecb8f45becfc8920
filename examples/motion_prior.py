"""A motion prior: a critic that knows how a pose follows another, as AMP has it.

    python -m examples.motion_prior --losses fast --picture motion.png

The critic is an MLP of 1024 and 512 units over two poses in a row; least squares towards 1 and -1,
and R1 on the logits of the real ones (Peng et al., 2021). The poses are a made gait: joint angles
that swing in step. A small network learns to continue it, from its own poses too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

import ganloss_fast as gf
from examples import setting

GAMMA = 10.0  # of R1: AMP's coefficient 5 of the squared norm
STRIDE = 2 * math.pi / 30  # a gait of thirty frames


class Reference:
    """As people write it."""

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real = real.requires_grad_()
        real_logits, fake_logits = critic(real), critic(fake)
        loss = 0.5 * (((real_logits - 1) ** 2).mean() + ((fake_logits + 1) ** 2).mean())
        (gradient,) = torch.autograd.grad(
            real_logits,
            real,
            grad_outputs=torch.ones_like(real_logits),
            create_graph=True,
            retain_graph=True,
        )
        loss = loss + GAMMA / 2 * gradient.square().sum(-1).mean()
        loss.backward()
        return loss

    def generator_backward(self, critic: nn.Module, generator: nn.Module, fake: Tensor) -> Tensor:
        loss = ((critic(fake) - 1) ** 2).mean()
        loss.backward()
        return loss


class Fast:
    loss = gf.LeastSquares(real_label=1.0, fake_label=-1.0)

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real = real.requires_grad_()
        # The same logits, on a graph whose backward serves the loss and the penalty at once.
        real_logits, r1 = gf.logits_and_penalty(critic(real), real, gf.R1(GAMMA))
        loss = gf.discriminator_loss(
            real_logits, critic(fake), self.loss, real_weight=0.5, fake_weight=0.5
        )
        loss = loss + r1
        loss.backward()
        return loss

    def generator_backward(self, critic: nn.Module, generator: nn.Module, fake: Tensor) -> Tensor:
        loss = gf.generator_loss(critic(fake), self.loss)
        gf.generator_backward(loss, generator)  # no weight gradients of the critic
        return loss


class Gait:
    """Every joint swings with its own amplitude and lag."""

    def __init__(self, joints: int) -> None:
        self.swing, self.lag = 0.3 + 0.7 * torch.rand(joints), 2 * math.pi * torch.rand(joints)

    def poses(self, phase: Tensor) -> Tensor:  # [B] to [B, joints]
        return self.swing * (phase[:, None] + self.lag).sin()

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Two poses in a row."""
        phase = 2 * math.pi * torch.rand(count)
        return self.poses(phase), self.poses(phase + STRIDE)


class Mover(nn.Module):
    """The next pose, from a pose."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *[nn.Linear(joints, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()],
            nn.Linear(256, joints),
        )

    def forward(self, pose: Tensor) -> Tensor:
        return pose + 0.3 * self.layers(pose)


def angles(poses: Tensor) -> setting.Panel:
    """The first three joints over time, of poses [T, joints]."""

    def panel(axis: Axes) -> None:
        axis.plot(poses[:, :3].detach().cpu().numpy())
        axis.set_ylim(-1.4, 1.4)
        axis.set_xlabel("frame")
        axis.set_ylabel("angle")

    return panel


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    options = setting.start(setting.parser(__doc__, steps=600, batch=256, size=12), arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses]()
    gait, generator = Gait(options.size), Mover(options.size)
    critic = nn.Sequential(
        *[nn.Linear(2 * options.size, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU()],
        nn.Linear(512, 1),
    )
    to_critic = torch.optim.Adam(critic.parameters(), 1e-4, betas=(0.5, 0.99))
    to_generator = torch.optim.Adam(generator.parameters(), 3e-4, betas=(0.5, 0.99))
    log = setting.Log(options.steps)
    start = gait.draw(options.batch)[0]

    for _ in range(options.steps):
        pose, following = gait.draw(options.batch)
        start = torch.where(
            torch.rand(options.batch, 1) < 0.3, pose, start
        )  # or its own, continued
        moved = generator(start)
        real, fake = torch.cat([pose, following], 1), torch.cat([start, moved], 1)
        to_critic.zero_grad()
        critic_loss = losses.critic_backward(critic, real, fake.detach())
        to_critic.step()

        to_generator.zero_grad()
        generator_loss = losses.generator_backward(critic, generator, fake)
        to_generator.step()
        log.add(critic=critic_loss, generator=generator_loss)
        start = moved.detach()

    walked = [gait.poses(torch.zeros(1))]
    for _ in range(89):
        walked.append(generator(walked[-1]).detach())
    panels = {
        "the made gait": angles(gait.poses(STRIDE * torch.arange(90))),
        "continued from one pose": angles(torch.cat(walked)),
    }
    log.draw(options.picture, f"motion prior, {options.steps} steps, {options.losses}", panels)
    return log


if __name__ == "__main__":
    main()
