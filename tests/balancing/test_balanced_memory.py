"""What is behind the reconstruction is kept for one walk: a balanced step needs less memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from image_tokenizers import ConvTokenizer, PatchTokenizer
from tokenizer_training import Trainer, written_out

import ganloss_fast as gf
from ganloss_fast.bench.memory import peak_memory


def balanced(trainer: Trainer) -> object:
    nll, g, codebook, images = trainer.losses()
    return gf.balanced_backward(
        [nll, g],
        images,
        trainer.tokenizer.last.weight,
        weights=[1.0, 0.5],
        extra_loss=codebook,
        loss_parameters=[trainer.logvar],
    )


def balanced_beside_another_graph(trainer: Trainer) -> object:
    return trainer.losses(), balanced(trainer)


def as_published(trainer: Trainer) -> object:
    """Without the critic's weight gradients, which a balanced step leaves out too."""
    with gf.frozen(trainer.critic):
        return written_out(trainer)


def peak_of(step: Callable[[Trainer], object], tokenizer: Callable[[], torch.nn.Module]) -> int:
    trainer = Trainer(tokenizer, torch.float32)
    trainer.images = torch.rand(2, 3, 32, 32)
    step(trainer)  # what is made once is no part of a step
    for parameter in (*trainer.tokenizer.parameters(), trainer.logvar):
        parameter.grad = None
    return peak_memory(lambda: step(trainer))


@pytest.mark.parametrize("tokenizer", [ConvTokenizer, PatchTokenizer])
def test_a_balanced_step_peaks_lower_than_the_published_one(tokenizer):
    published = peak_of(as_published, tokenizer)
    assert peak_of(balanced, tokenizer) < 0.97 * published
    assert peak_of(balanced_beside_another_graph, tokenizer) > 1.5 * published
