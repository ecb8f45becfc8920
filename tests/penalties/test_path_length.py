"""Path length regularisation, and when to apply a penalty."""

from __future__ import annotations

import pytest
import torch
from penalty_oracle import HostSync, assert_penalty
from torch import nn

import ganloss_fast as gf


def test_path_length_is_the_published_formula():
    torch.manual_seed(0)
    mapping = nn.Linear(16, 3 * 8 * 8).double()
    latents = torch.randn(4, 6, 16, dtype=torch.float64, requires_grad=True)
    images, again = (mapping(latents.sum(1)).tanh().view(4, 3, 8, 8) for _ in range(2))
    noise = torch.randn_like(images) / 8
    mean = torch.tensor(0.5, dtype=torch.float64)
    result = gf.path_length_penalty(images, latents, mean, noise=noise)
    (g,) = torch.autograd.grad((again * noise).sum(), latents, create_graph=True)
    lengths = g.square().sum(2).mean(1).sqrt()
    average = mean.lerp(lengths.mean(), 0.01)
    assert_penalty(result.penalty, 2 * (lengths - average).square().mean(), mapping, 1e-12)
    assert result.mean.item() == pytest.approx(average.item())
    assert not result.mean.requires_grad
    assert torch.allclose(result.lengths, lengths)


def test_path_length_about_an_average_that_the_caller_keeps():
    """stylegan2-pytorch: no weight, and an average (0.99 of the old) that carries no gradient."""
    torch.manual_seed(0)
    mapping = nn.Linear(16, 3 * 8 * 8).double()
    latents = torch.randn(4, 6, 16, dtype=torch.float64, requires_grad=True)
    images, again = (mapping(latents.sum(1)).tanh().view(4, 3, 8, 8) for _ in range(2))
    noise = torch.randn_like(images) / 8
    average = torch.tensor(0.5, dtype=torch.float64)
    (g,) = torch.autograd.grad((again * noise).sum(), latents, create_graph=True)
    lengths = g.square().sum(2).mean(1).sqrt()
    wanted = (lengths - 0.5).square().mean()
    result = gf.path_length_penalty(images, latents, average, noise=noise, weight=1, decay=0)
    assert_penalty(result.penalty, wanted, mapping, 1e-12)
    assert torch.equal(result.mean, average)
    assert torch.allclose(result.lengths, lengths, rtol=1e-12)


def test_path_length_mean_stays_on_the_device_and_is_not_changed():
    latents = torch.randn(2, 4, requires_grad=True)
    images = (latents @ torch.randn(4, 12)).view(2, 3, 2, 2)
    mean = torch.zeros(())
    with HostSync():
        gf.path_length_penalty(images, latents, mean, how=gf.Differentiation(graph_cut="off"))
    assert mean.item() == 0


def images_and_latents():
    latents = torch.randn(2, 4, requires_grad=True)
    return (latents @ torch.randn(4, 12)).view(2, 3, 2, 2), latents


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, w: (i, w.detach()), r"Call latents.requires_grad_\(\) before the generator"),
        (lambda i, w: (i, w.clone()), "latents: the images were not computed from them"),
        (lambda i, w: (i.detach(), w), "images: they have no graph"),
        (lambda i, w: (i[:0], w[:0]), r"images: expected at least one, got shape \[0, 3, 2, 2\]"),
        (lambda i, w: (i, w[:1]), r"latents: expected shape \[2, D\]"),
    ],
)
def test_images_that_do_not_come_from_the_latents_are_explained(change, message):
    with pytest.raises(ValueError, match=message):
        gf.path_length_penalty(*change(*images_and_latents()), torch.zeros(()))


@pytest.mark.parametrize("every", [4, 16])
def test_lazy_regularisation_has_the_interval_scale_and_adam_of_stylegan2(every):
    """16 for the discriminator, 4 for the generator."""
    lazy = gf.LazyRegularizer(every)
    assert [step for step in range(2 * every + 1) if lazy.is_due(step)] == [0, every, 2 * every]
    assert lazy.scale == every
    adam = lazy.adam(lr=0.002, betas=(0.0, 0.99))
    assert adam["lr"] == pytest.approx(0.002 * every / (every + 1))
    assert adam["betas"] == (0.0, pytest.approx(0.99 ** (every / (every + 1))))


@pytest.mark.parametrize(("every", "error"), [(0, ValueError), (1.5, TypeError)])
def test_a_wrong_interval_is_refused(every, error):
    with pytest.raises(error, match="every: expected"):
        gf.LazyRegularizer(every)


@pytest.mark.parametrize("betas", [0.9, (0.9,)])
def test_wrong_betas_are_explained(betas):
    with pytest.raises(TypeError, match="betas: expected two numbers"):
        gf.LazyRegularizer().adam(lr=1e-3, betas=betas)
