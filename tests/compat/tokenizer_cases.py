"""Networks for the loss modules of tokenizers, and what two such modules must have in common."""

from __future__ import annotations

import tokenizer_codebases as codebases
import torch
from drop_in_cases import TOLERANCE


def networks(dtype=torch.float64, channels=3):
    torch.manual_seed(0)
    made = codebases.Autoencoder(), codebases.Lpips(), codebases.critic(channels)
    return [network.to(dtype) for network in made]


def images(dtype=torch.float64, channels=3):
    return torch.rand(2, channels, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)


def assert_same_log(log, wanted, dtype):
    assert list(log) == list(wanted)
    for name, value in log.items():
        assert value.shape == (), name
        assert not value.requires_grad
        tolerance = 10 * TOLERANCE[dtype]
        torch.testing.assert_close(
            value, wanted[name], rtol=tolerance, atol=tolerance, check_dtype=False
        )


def assert_losses_agree(ours, plain, learning, dtype):
    """Value, log, and the gradients of all that learns; ``ours`` and ``plain`` make (loss, log)."""
    (loss, log), (wanted, wanted_log) = ours(), plain()
    assert (loss.shape, loss.dtype) == (wanted.shape, wanted.dtype)
    torch.testing.assert_close(loss, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert_same_log(log, wanted_log, dtype)
    found, expected = (
        torch.autograd.grad(value, learning, retain_graph=True, allow_unused=True)
        for value in (loss, wanted)
    )
    torch.testing.assert_close(found, expected, rtol=1e3 * TOLERANCE[dtype], atol=TOLERANCE[dtype])


OPTIONS = {"weight": "disc_weight", "factor": "disc_factor", "start": "disc_start"}


def module_of(cls, lpips, critic, case, **more):
    named = {OPTIONS.get(name, name): value for name, value in case.items()}
    named.setdefault("disc_start", 0)
    return cls(**named, perceptual_loss=lpips, discriminator=critic, **more)
