"""Drop-ins for audio and tokenizers on fake CUDA tensors, which cannot be waited for: they have no
data."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from drop_in_cases import maps_and_logits
from fake_cuda import fake_cuda
from torch import Tensor, nn

from ganloss_fast.compat import audiocraft as ac
from ganloss_fast.compat import (
    bigvgan,
    dac,
    encodec,
    hifigan,
    latent_diffusion,
    llamagen,
    seed_voken,
    taming,
    vits,
)
from ganloss_fast.compat import diffusers as diffusers
from ganloss_fast.compat import parallel_wavegan as pwg

pytestmark = pytest.mark.skipif(
    not torch.backends.cuda.is_built(),
    reason="this torch has no CUDA, and aborts at a fake CUDA tensor that requires grad",
)


def leaf(*shape: int) -> Tensor:
    return torch.empty(shape, device="cuda", requires_grad=True)


def logits() -> list[Tensor]:
    return [leaf(2, 9), leaf(2, 5)]


def maps() -> list[list[Tensor]]:
    return [[leaf(2, 3, 7), leaf(2, 1, 7)], [leaf(2, 5), leaf(2, 1)]]


def patches() -> Tensor:
    return leaf(2, 1, 4, 4)


def adaptive_weight() -> Tensor:
    layer = leaf(3, 3)
    y = leaf(2, 3) @ layer
    return taming.calculate_adaptive_weight(y.square().sum(), y.sum(), layer)


def balanced() -> Tensor:
    y = leaf(2, 3) @ leaf(3, 3)
    balancer = ac.Balancer({"a": 1.0, "b": 1.0}, monitor=True)
    return balancer.backward({"a": y.square().sum(), "b": y.sum()}, y)


def balanced_by_encodec() -> Tensor:
    y = leaf(2, 3) @ leaf(3, 3)
    encodec.Balancer({"a": 1.0}).backward({"a": y.square().sum()}, y)
    return y.sum()


def judged() -> Tensor:
    with torch.device("cuda"):
        adversary = maps_and_logits()
    loss = ac.AdversarialLoss(
        adversary,
        torch.optim.SGD(adversary.parameters()),
        ac.mse_loss,
        ac.mse_real_loss,
        ac.mse_fake_loss,
        ac.FeatureMatchingLoss(),
    )
    return sum(loss(leaf(2, 1, 16), leaf(2, 1, 16)))


def paired() -> Tensor:
    narrow = SimpleNamespace(
        mpd_reshapes=[2, 3], use_spectral_norm=False, discriminator_channel_mult=0.0625
    )
    with torch.device("cuda"):
        family = bigvgan.MultiPeriodDiscriminator(narrow)
    _, y_d_gs, fmap_rs, fmap_gs = family(leaf(2, 1, 64), leaf(2, 1, 64))
    return hifigan.generator_loss(y_d_gs)[0] + hifigan.feature_loss(fmap_rs, fmap_gs)


def coded() -> Tensor:
    class Discriminator(nn.Module):
        def forward(self, x):
            return [[x, x.sum(1)], [x.tanh(), x.mean(1)]]

    loss = dac.GANLoss(Discriminator())
    fake, real = leaf(2, 3), leaf(2, 3)
    return loss.discriminator_loss(fake, real) + sum(loss.generator_loss(fake, real))


def penalised() -> Tensor:
    images = leaf(2, 3)
    return diffusers.gradient_penalty(images, images.square().sum(1))


CALLS: dict[str, Callable[[], Tensor]] = {
    "hifigan D": lambda: hifigan.discriminator_loss(logits(), logits(), floats=False)[0],
    "hifigan G": lambda: hifigan.generator_loss(logits())[0],
    "hifigan features": lambda: hifigan.feature_loss(maps(), maps()),
    "vits features": lambda: vits.feature_loss(maps(), maps()),
    "parallel_wavegan G": lambda: pwg.GeneratorAdversarialLoss()(maps()),
    "parallel_wavegan D": lambda: sum(pwg.DiscriminatorAdversarialLoss()(maps(), maps())),
    "parallel_wavegan features": lambda: pwg.FeatureMatchLoss()(maps(), maps()),
    "bigvgan pairs": paired,
    "dac": coded,
    "audiocraft": judged,
    "audiocraft balancer": balanced,
    "encodec": balanced_by_encodec,
    "taming hinge": lambda: taming.hinge_d_loss(patches(), patches()),
    "taming vanilla": lambda: taming.vanilla_d_loss(patches(), patches()),
    "taming weight": adaptive_weight,
    "latent_diffusion": lambda: latent_diffusion.hinge_d_loss_with_exemplar_weights(
        patches(), patches(), torch.ones(2, device="cuda")
    ),
    "llamagen D": lambda: llamagen.non_saturating_d_loss(patches(), patches()),
    "llamagen published D": lambda: llamagen.non_saturating_d_loss(
        patches(), patches(), reversed_as_published=True
    ),
    "llamagen G": lambda: llamagen.non_saturating_gen_loss(patches()),
    "seed_voken D": lambda: seed_voken.non_saturate_discriminator_loss(patches(), patches()),
    "seed_voken G": lambda: seed_voken.non_saturate_gen_loss(patches()),
    "diffusers": penalised,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nothing_waits_for_the_device(call):
    with fake_cuda():
        result = call()
        assert (result.shape, result.device.type) == ((), "cuda")


def test_numbers_of_hifigan_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    with fake_cuda(), pytest.raises(Exception, match=r"(?i)data.?dependent|local_scalar|tolist"):
        hifigan.discriminator_loss(logits(), logits())


def test_they_come_by_one_transfer(monkeypatch):
    transfers = []
    for name in ("tolist", "item", "cpu", "numpy", "__float__"):
        original = getattr(torch.Tensor, name)

        def counted(self, *arguments, name=name, original=original):
            transfers.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(torch.Tensor, name, counted)
    hifigan.discriminator_loss([torch.zeros(2, 9)] * 8, [torch.zeros(2, 9)] * 8)
    assert transfers == ["tolist"]
