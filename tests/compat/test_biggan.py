"""BigGAN's losses: pairs, the fake logits first."""

from __future__ import annotations

import pytest
from image_codebases import DTYPES, Labelled, assert_same, assert_trains_alike, logits
from torch.nn import functional as F

from ganloss_fast.compat import biggan


def plain_dcgan(fake, real):
    return F.softplus(-real, threshold=40).mean(), F.softplus(fake, threshold=40).mean()


def plain_hinge(fake, real):
    return F.relu(1 - real).mean(), F.relu(1 + fake).mean()


KINDS = {
    "dcgan": (
        biggan.loss_dcgan_dis,
        plain_dcgan,
        biggan.loss_dcgan_gen,
        lambda x: F.softplus(-x, threshold=40).mean(),
    ),
    "hinge": (biggan.loss_hinge_dis, plain_hinge, biggan.loss_hinge_gen, lambda x: -x.mean()),
    "default": (
        biggan.discriminator_loss,
        plain_hinge,
        biggan.generator_loss,
        lambda x: -x.mean(),
    ),
}
every_kind = pytest.mark.parametrize(
    ("critic_loss", "plain_critic_loss", "generator_loss", "plain_generator_loss"),
    KINDS.values(),
    ids=KINDS,
)


@every_kind
@pytest.mark.parametrize("dtype", DTYPES)
def test_both_losses_are_the_formulas(
    critic_loss, plain_critic_loss, generator_loss, plain_generator_loss, dtype
):
    fake, real = logits(6, 1, dtype=dtype), logits(5, 1, dtype=dtype, seed=1)
    assert_same(critic_loss, plain_critic_loss, fake, real)
    assert_same(generator_loss, plain_generator_loss, fake)


@every_kind
def test_fifty_steps_train_alike(
    critic_loss, plain_critic_loss, generator_loss, plain_generator_loss
):
    def step_with(both_sides, of_generator):
        def step(G, D, real, z):
            fake = G(z)
            return sum(both_sides(D(fake.detach()), D(real))), lambda: of_generator(D(fake))

        return step

    assert_trains_alike(
        step_with(critic_loss, generator_loss),
        step_with(plain_critic_loss, plain_generator_loss),
        Labelled,
    )
