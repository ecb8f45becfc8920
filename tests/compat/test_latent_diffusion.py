"""latent-diffusion: taming's functions, and weights of samples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from drop_in_cases import DTYPES, assert_same, assert_training_agrees, draw
from torch import nn

import ganloss_fast as gf
from ganloss_fast.compat import latent_diffusion, taming


def weighted_hinge(weights):
    def loss(real, fake):
        of_real = F.relu(1.0 - real).mean(dim=[1, 2, 3])
        of_fake = F.relu(1.0 + fake).mean(dim=[1, 2, 3])
        shares = weights / weights.sum()
        return 0.5 * ((shares * of_real).sum() + (shares * of_fake).sum())

    return loss


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples_count_by_their_weight(dtype, backend):
    weights = torch.tensor([0.5, 3.0, 0.0], dtype=dtype)

    def ours(real, fake):
        return latent_diffusion.hinge_d_loss_with_exemplar_weights(real, fake, weights)

    with gf.use_backend(backend):
        inputs = draw((3, 1, 4, 5), (3, 1, 2, 2), dtype=dtype)
        assert_same(ours, weighted_hinge(weights), *inputs)


def test_a_learned_variance_gets_its_gradient_in_one_backward():
    def step_with(backward):
        def step(model, logvar, of_model, of_logvar, images):
            found = model(images)
            distance = (found - images).abs().mean()
            nll = distance / logvar.value.exp() + logvar.value
            of_model.zero_grad()
            of_logvar.zero_grad()
            backward(nll, found.square().mean(), found, model.weight, logvar.value)
            of_model.step()
            of_logvar.step()

        return step

    def plain(nll, g, found, last, logvar):
        (nll + latent_diffusion.calculate_adaptive_weight(nll, g, last, 0.5) * g).backward()

    def ours(nll, g, found, last, logvar):
        gf.balanced_backward([nll, g], found, last, weights=[1.0, 0.5], loss_parameters=[logvar])

    class Variance(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.zeros(()))

    torch.manual_seed(0)
    networks = nn.Conv2d(3, 3, 3, padding=1), Variance()
    assert_training_agrees(
        step_with(ours),
        step_with(plain),
        networks,
        lambda draws: (torch.rand(2, 3, 8, 8, generator=draws),),
    )


def test_the_rest_is_tamings():
    for name in ("hinge_d_loss", "vanilla_d_loss", "adopt_weight", "calculate_adaptive_weight"):
        assert getattr(latent_diffusion, name) is getattr(taming, name)


def test_a_weight_for_each_sample_is_asked_for():
    real, fake = draw((3, 1, 2, 2), (2, 1, 2, 2))
    with pytest.raises(ValueError, match="weights: expected one for each sample of logits_fake"):
        latent_diffusion.hinge_d_loss_with_exemplar_weights(real, fake, torch.ones(3))
