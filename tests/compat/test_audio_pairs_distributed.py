"""Audio discriminators under DistributedDataParallel: two processes, gloo."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from audio_codebases import CONFIGURATION
from torch.nn.parallel import DistributedDataParallel
from two_processes import in_two_processes

from ganloss_fast.compat import bigvgan, hifigan

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")


def gradients_of(family, parameters, audio, of_generator):
    y, y_hat = audio
    y_d_rs, y_d_gs, fmap_rs, fmap_gs = family(y, y_hat.clone().requires_grad_(of_generator))
    loss, _, _ = hifigan.discriminator_loss(y_d_rs, y_d_gs)
    (loss + hifigan.feature_loss(fmap_rs, fmap_gs)).backward()
    found = [parameter.grad.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return found


def network_and_audio():
    torch.manual_seed(0)
    return bigvgan.MultiPeriodDiscriminator(CONFIGURATION).double(), torch.randn(
        2, 4, 1, 97, dtype=torch.float64
    )


def of_half_the_batch(rank):
    family, audio = network_and_audio()
    halves = audio[:, 2 * rank : 2 * rank + 2]
    wrapped = DistributedDataParallel(family)
    parameters = list(family.parameters())
    return [gradients_of(wrapped, parameters, halves, k) for k in (False, True, False)]


def test_two_processes_learn_what_one_does_of_the_whole_batch():
    family, audio = network_and_audio()
    wanted = gradients_of(family, list(family.parameters()), audio, False)
    for steps in in_two_processes(of_half_the_batch):
        for found in steps:
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
