"""ParallelWaveGAN's criteria: generated first, lists with feature maps or without."""

from __future__ import annotations

import inspect
import itertools

import pytest
import torch
import torch.nn.functional as F
from drop_in_cases import (
    DTYPES,
    assert_same,
    assert_training_agrees,
    draw,
    maps_and_logits,
    waveform_generator,
    waveforms,
)

import ganloss_fast as gf
from ganloss_fast.compat import parallel_wavegan as pwg

NESTED = [[(2, 3, 7), (2, 1, 7)], [(2, 5), (2, 4, 3), (2, 1)]]
FLAT = [(2, 9), (2, 5)]
FORMS = {"a tensor": (2, 1, 9), "a list": FLAT, "lists": NESTED}


def logits_of(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [o[-1] if isinstance(o, list) else o for o in outputs]


def over(terms, average):
    return sum(terms) / (len(terms) if average else 1)


def generator_loss(average, kind):
    def loss(outputs):
        term = {"mse": lambda x: F.mse_loss(x, torch.ones_like(x)), "hinge": lambda x: -x.mean()}
        return over([term[kind](x) for x in logits_of(outputs)], average)

    return loss


def discriminator_loss(average, kind):
    def term(x, sign):
        if kind == "hinge":
            return F.relu(1 - sign * x).mean()
        return F.mse_loss(x, torch.ones_like(x) if sign > 0 else torch.zeros_like(x))

    def loss(outputs_hat, outputs):
        return tuple(
            over([term(x, sign) for x in logits_of(side)], average)
            for side, sign in ((outputs, 1), (outputs_hat, -1))
        )

    return loss


def feature_loss(layers, discriminators, last):
    def loss(hats, reals):
        sums = []
        for hat, real in zip(hats, reals):
            if not last:
                hat, real = hat[:-1], real[:-1]
            sums.append(over([F.l1_loss(h, r.detach()) for h, r in zip(hat, real)], layers))
        return over(sums, discriminators)

    return loss


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("average", "kind"), [*itertools.product([True, False], ["mse", "hinge"])], ids=str
)
def test_criteria_are_the_formulas(form, average, kind, dtype):
    hats, reals = draw(form, form, dtype=dtype)
    assert_same(pwg.GeneratorAdversarialLoss(average, kind), generator_loss(average, kind), hats)
    ours = pwg.DiscriminatorAdversarialLoss(average, kind)
    assert_same(ours, discriminator_loss(average, kind), hats, reals)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("switches", [*itertools.product([True, False], repeat=3)], ids=str)
def test_features_are_matched_as_the_three_switches_say(switches, dtype):
    hats, reals = draw(NESTED, NESTED, dtype=dtype)
    assert_same(pwg.FeatureMatchLoss(*switches), feature_loss(*switches), hats, reals)


def test_the_reference_backend_agrees():
    hats, reals = draw(NESTED, NESTED)
    with gf.use_backend("reference"):
        ours = pwg.DiscriminatorAdversarialLoss()
        assert_same(ours, discriminator_loss(True, "mse"), hats, reals)


def test_defaults_are_the_published_ones():
    def defaults(owner):
        parameters = inspect.signature(owner.__init__).parameters.values()
        return {p.name: p.default for p in parameters if p.name != "self"}

    wanted = {"average_by_discriminators": True, "loss_type": "mse"}
    assert defaults(pwg.GeneratorAdversarialLoss) == wanted
    assert defaults(pwg.DiscriminatorAdversarialLoss) == wanted
    assert defaults(pwg.FeatureMatchLoss) == {
        "average_by_layers": True,
        "average_by_discriminators": True,
        "include_final_outputs": False,
    }
    names = list(inspect.signature(pwg.DiscriminatorAdversarialLoss.forward).parameters)
    assert names == ["self", "outputs_hat", "outputs"]


def test_nothing_is_saved():
    for module in (
        pwg.GeneratorAdversarialLoss(),
        pwg.DiscriminatorAdversarialLoss(),
        pwg.FeatureMatchLoss(),
    ):
        assert not module.state_dict()


@pytest.mark.parametrize("kind", ["mse", "hinge"])
def test_fifty_steps_agree(kind):
    def step_with(of_g, of_d, match):
        def step(generator, critic, of_generator, of_critic, noise, real):
            fake = generator(noise)
            hats, reals = critic(fake)[1], critic(real)[1]
            of_generator.zero_grad()
            (2.5 * of_g(hats) + 2 * match(hats, reals)).backward()
            of_generator.step()
            of_critic.zero_grad()
            real_loss, fake_loss = of_d(critic(fake.detach())[1], critic(real)[1])
            (real_loss + fake_loss).backward()
            of_critic.step()

        return step

    torch.manual_seed(0)
    networks = waveform_generator(), maps_and_logits()
    assert_training_agrees(
        step_with(
            pwg.GeneratorAdversarialLoss(loss_type=kind),
            pwg.DiscriminatorAdversarialLoss(loss_type=kind),
            pwg.FeatureMatchLoss(),
        ),
        step_with(
            generator_loss(True, kind),
            discriminator_loss(True, kind),
            feature_loss(True, True, False),
        ),
        networks,
        waveforms,
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda n: pwg.GeneratorAdversarialLoss(loss_type="lsgan"),
            ValueError,
            "one of mse, hinge",
        ),
        (lambda n: pwg.GeneratorAdversarialLoss()({"logits": n}), TypeError, "outputs: expected"),
        (lambda n: pwg.GeneratorAdversarialLoss()([]), ValueError, "at least one discriminator"),
        (lambda n: pwg.GeneratorAdversarialLoss()([n]), ValueError, "one level too deep"),
        (lambda n: pwg.DiscriminatorAdversarialLoss()([[]], n), ValueError, r"outputs_hat\[0\]"),
        (lambda n: pwg.FeatureMatchLoss()(n[0], n), TypeError, r"feats_hat\[0\]: expected"),
        (lambda n: pwg.FeatureMatchLoss()([n[0][:1]], [n[0][:1]]), ValueError, "no feature map"),
    ],
)
def test_wrong_input_is_explained(call, error, message):
    with pytest.raises(error, match=message):
        call(draw(NESTED))
