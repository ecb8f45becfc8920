"""Wrong critics, samples and options: what the penalties say."""

from __future__ import annotations

import warnings

import pytest
import torch
from critics import patchgan
from penalty_oracle import samples, small_critic
from torch import nn

import ganloss_fast as gf


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x):
        return self.linear(x.mul_(2))


@pytest.mark.parametrize(
    ("critic", "error", "message"),
    [
        (lambda x: None, TypeError, "it returned None"),
        (lambda x: [], ValueError, "an empty sequence"),
        (lambda x: 3.0, TypeError, "expected a tensor of logits"),
        (lambda x: [[x.sum()], x.sum()], TypeError, "output 0 is a list of 1. Wrap"),
        (lambda x: {"logits": x}, TypeError, "expected a tensor of logits"),
        (lambda x: x.detach().sum(), ValueError, "may be detached"),
        (lambda x: torch.ones(2, requires_grad=True), ValueError, "does not depend on its input"),
        (lambda x: x.sum().long(), TypeError, "expected floating-point logits"),
        (InPlace(), ValueError, "changes its input in place"),
        ("critic", TypeError, "expected a function or a module"),
    ],
)
def test_a_critic_that_cannot_be_penalised_is_explained(critic, error, message):
    with pytest.raises(error, match=message):
        gf.gradient_penalty(critic, torch.randn(2, 3), torch.randn(2, 3))


def test_a_critic_that_changes_a_computed_input_in_place_is_refused():
    fake = torch.randn(2, 3, requires_grad=True) * 1.0
    with pytest.raises(ValueError, match="changes its input in place"):
        gf.r2_penalty(InPlace(), fake)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sampling": "middle"}, ValueError, "sampling: expected one of mixed"),
        ({"norm": "pixel"}, ValueError, "norm: expected one of"),
        ({"eps": -1.0}, ValueError, "eps: expected a number >= 0"),
        ({"power": 0}, ValueError, "power: expected a number > 0"),
        ({"reduction": "median"}, ValueError, "reduction: expected one of"),
        ({"normalize_by_mask": True}, ValueError, "normalize_by_mask: expected a mask"),
        ({"output_weights": [1.0, 2.0]}, ValueError, "output_weights: expected one for each"),
        ({"inv_scale": 0.0}, ValueError, "inv_scale: expected a number > 0"),
        ({"graph_cut": "on"}, ValueError, "graph_cut: expected one of auto, fast, off"),
        ({"graph_cut": "off", "zero_grads": "all"}, ValueError, "zero_grads: .* graph_cut='off'"),
        ({"weight": torch.ones(2)}, ValueError, "weight: expected a number or a 0-d"),
        ({"alpha": "pixel"}, ValueError, "alpha: expected one of"),
    ],
)
def test_a_wrong_option_is_explained(options, error, message):
    with pytest.raises(error, match=message):
        gf.gradient_penalty(small_critic(), *samples(), **options)


def test_missing_samples_are_explained():
    with pytest.raises(ValueError, match="fake: sampling 'mixed' needs fake samples"):
        gf.gradient_penalty(small_critic(), samples()[0])


def test_logits_need_inputs_that_require_grad():
    critic = small_critic()
    with pytest.raises(ValueError, match=r"Call inputs.requires_grad_\(\) before the critic"):
        gf.penalty_from_logits(critic(samples()[0]), samples()[0])


def test_batch_norm_under_a_per_sample_penalty_warns_once():
    critic = patchgan(4, nn.BatchNorm2d)
    x = torch.randn(2, 3, 32, 32)
    with pytest.warns(UserWarning, match="it runs BatchNorm2d.8, .*statistics of the batch"):
        gf.r1_penalty(critic, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.r1_penalty(critic, x)
