"""What balanced_backward refuses, and how it says so."""

from __future__ import annotations

import copy

import pytest
import torch
from image_tokenizers import ConvTokenizer
from tokenizer_training import (
    Trainer,
)
from torch import Tensor, nn

import ganloss_fast as gf


def model_and_losses():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    hidden = model[:2](torch.randn(4, 3))
    y = model[2](hidden)
    return model, hidden, y


def hooked(y: Tensor) -> Tensor:
    y.register_hook(lambda g: 2 * g)
    return y


BAD = {
    "no loss": (lambda m, h, y: ([], y), {}, ValueError, "at least one loss"),
    "a tensor of losses": (
        lambda m, h, y: (y.sum(), y),
        {},
        TypeError,
        "losses: expected a sequence",
    ),
    "a whole tensor": (
        lambda m, h, y: ([y], y),
        {},
        ValueError,
        r"losses\[0\]: expected a tensor of one",
    ),
    "a number": (lambda m, h, y: ([1.0], y), {}, TypeError, r"losses\[0\]: expected a tensor"),
    "a constant": (
        lambda m, h, y: ([y.sum(), torch.ones(())], y),
        {},
        ValueError,
        r"losses\[1\]: it requires no grad",
    ),
    "a loss of the encoder": (
        lambda m, h, y: ({"nll": y.sum(), "commit": h.sum()}, y),
        {},
        ValueError,
        r"losses\['commit'\]: it does not depend on the reconstruction",
    ),
    "a loss of both": (
        lambda m, h, y: ([y.sum() + h.square().sum()], y),
        {},
        ValueError,
        r"losses\[0\]: it reaches the model beside the reconstruction, by .*extra_loss",
    ),
    "a loss of a weight": (
        lambda m, h, y: ([y.sum() + m[0].weight.sum()], y),
        {},
        ValueError,
        r"a leaf of shape \[3, 3\]",
    ),
    "an earlier reconstruction": (
        lambda m, h, y: ([y.sum()], y.tanh()),
        {},
        ValueError,
        "does not depend on the reconstruction",
    ),
    "a detached reconstruction": (
        lambda m, h, y: ([y.sum()], y.detach()),
        {},
        ValueError,
        "reconstruction: it requires no grad",
    ),
    "a hook": (lambda m, h, y: ([y.sum()], hooked(y)), {}, ValueError, "it has hooks"),
    "too few weights": (lambda m, h, y: ([y.sum()], y), {"weights": []}, ValueError, "expected 1"),
    "a weight by name": (
        lambda m, h, y: ([y.sum()], y),
        {"weights": {"nll": 1.0}},
        TypeError,
        "structured like losses",
    ),
    "a missing weight": (
        lambda m, h, y: ({"nll": y.sum()}, y),
        {"weights": {"g": 1.0}},
        ValueError,
        "none for the loss 'nll'",
    ),
    "no weight at all": (
        lambda m, h, y: ([y.sum()], y),
        {"weights": [0.0], "rule": gf.GradientShares()},
        ValueError,
        "one above 0",
    ),
    "a rule by name": (
        lambda m, h, y: ([y.sum()], y),
        {"rule": "adaptive"},
        TypeError,
        "rule: expected AdaptiveWeight",
    ),
    "the class of a rule": (
        lambda m, h, y: ([y.sum()], y),
        {"rule": gf.GradientShares},
        TypeError,
        r"Create one: GradientShares\(\)",
    ),
    "averages without a rule": (
        lambda m, h, y: ([y.sum()], y),
        {"averages": gf.NormAverages(torch.zeros(1), torch.zeros(1))},
        ValueError,
        "only GradientShares has them",
    ),
    "averages of other losses": (
        lambda m, h, y: ([y.sum()], y),
        {
            "averages": gf.NormAverages(torch.zeros(2), torch.zeros(2)),
            "rule": gf.GradientShares(),
        },
        ValueError,
        "of 2 losses, and this step has 1",
    ),
    "a group": (lambda m, h, y: ([y.sum()], y), {"process_group": 1}, TypeError, "process_group"),
}


@pytest.mark.parametrize(("arguments", "options", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_explained(arguments, options, error, message):
    with pytest.raises(error, match=message):
        gf.balanced_backward(*arguments(*model_and_losses()), **options)


def test_a_last_layer_that_is_none_is_explained():
    model, _, y = model_and_losses()
    with pytest.raises(ValueError, match="last_layer: the reconstruction does not depend on it"):
        gf.balanced_backward([y.sum()], y, nn.Linear(3, 3).weight)
    with pytest.raises(ValueError, match="has no samples"):
        gf.balanced_backward([y.sum()], y, model[2].weight, rule=gf.GradientShares())


def test_reconstructions_of_one_node_are_told_apart():
    """Two halves of a split: the other half is the model beside the reconstruction."""
    first, second = nn.Linear(3, 4)(torch.ones(2, 3)).chunk(2, 1)
    gf.balanced_backward([first.sum()], first, retain_graph=True)
    with pytest.raises(ValueError, match="beside the reconstruction"):
        gf.balanced_backward([first.sum() + second.sum()], first)


def test_nothing_of_the_step_is_left_behind():
    """A critic that is copied, stepped and run again, as trainers do."""
    trainer = Trainer(ConvTokenizer, torch.float64)
    before = copy.deepcopy(trainer.critic.state_dict())
    nll, g, _, images = trainer.losses()
    gf.balanced_backward([nll, g], images, trainer.tokenizer.last.weight)
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), trainer.critic.state_dict().values())
    )
