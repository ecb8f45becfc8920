"""balanced_backward in training: loss scales, autocast, kept graphs; its cost; compiled models."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from critics import patchgan
from image_tokenizers import ConvTokenizer, PatchTokenizer, Perceptual
from tokenizer_training import (
    Trainer,
    assert_close,
    norm_ratio,
    small_critic,
)
from torch import nn

import ganloss_fast as gf
from ganloss_fast.diagnose import CountFlops


def test_a_grad_scaler_scales_the_backward_and_not_the_norms():
    plain, scaled = (Trainer(ConvTokenizer, torch.float64) for _ in range(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    balances = []
    for trainer, options in ((plain, {}), (scaled, {"scaler": scaler})):
        nll, g, codebook, images = trainer.losses()
        balances.append(
            gf.balanced_backward(
                [nll, g],
                images,
                trainer.tokenizer.last.weight,
                extra_loss=codebook,
                loss_parameters=[trainer.logvar],
                **options,
            )
        )
    assert_close(balances[1][:3], balances[0][:3], 1e-13)
    assert_close(scaled.gradients(), [1024 * g for g in plain.gradients()], 1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_reconstructions_have_norms_in_float32(dtype):
    model, x = nn.Linear(8, 8), torch.randn(4, 8)
    with torch.autocast("cpu", dtype):
        y = model(x)
    losses = [y.float().square().mean(), y.float().abs().mean()]
    balance = gf.balanced_backward(losses, y, model.weight)
    assert balance.weights.dtype == balance.norms.dtype == torch.float32
    assert model.weight.grad.isfinite().all()


def test_the_call_may_stand_inside_of_autocast():
    torch.manual_seed(0)
    model, x = nn.Linear(8, 8), torch.randn(4, 8)
    found = []
    for inside in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x)
            losses = [y.float().square().mean(), y.float().abs().mean()]
            if inside:
                balance = gf.balanced_backward(losses, y, model.weight)
        if not inside:
            balance = gf.balanced_backward(losses, y, model.weight)
        found.append([*balance[:3], model.weight.grad.clone()])
    for a, b in zip(*found):
        assert a.dtype == b.dtype == torch.float32
        assert torch.equal(a, b)


def test_losses_may_share_a_graph():
    """Adversarial and feature matching loss of one discriminator."""
    model, critic = nn.Linear(3, 3).double(), nn.Linear(3, 4).double()
    x = torch.randn(4, 3, dtype=torch.float64)

    def losses():
        y = model(x)
        features = critic(y).tanh()
        return [y.abs().mean(), -features.mean(), features.square().sum()], y

    values, y = losses()
    balance = gf.balanced_backward(values, y)
    ours = model.weight.grad.clone()
    model.weight.grad = None
    values, _ = losses()
    sum(w * loss for w, loss in zip(balance.weights, values)).backward()
    assert_close([ours], [model.weight.grad], 1e-13)


def test_graphs_are_kept_on_request_only():
    for keep in (True, False):
        critic = small_critic()
        y = nn.Conv2d(3, 3, 1)(torch.rand(2, 3, 16, 16))
        logits = critic(y.tanh())
        gf.balanced_backward([y.square().mean(), -logits.mean()], y, retain_graph=keep)
        if keep:
            gf.discriminator_backward(logits.mean(), critic, shares_forward=True)
            assert critic[0].weight.grad is not None
        else:
            with pytest.raises(RuntimeError, match="second time"):
                gf.discriminator_backward(logits.mean(), critic, shares_forward=True)


# ---- what it costs -----------------------------------------------------------------------------

PUBLISHED = {  # in the widths of the public configurations, on the meta device
    "convolutions": (lambda: ConvTokenizer(128, 256, (1, 1, 2, 2, 4)), 1.03, 1.03),
    "transformers": (lambda: PatchTokenizer(768, 12, 16, 12), 1.12, 1.11),
}


@pytest.mark.parametrize(
    ("tokenizer", "gain", "gain_over_frozen"), PUBLISHED.values(), ids=PUBLISHED
)
def test_a_generator_step_takes_fewer_operations(tokenizer, gain, gain_over_frozen):
    with torch.device("meta"):
        model, critic, perceptual = tokenizer(), patchgan(64), Perceptual(64)
        images = torch.empty(1, 3, 256, 256)
    last = model.last.weight

    def losses():
        found, latents = model(images)
        nll = F.l1_loss(found, images) + perceptual(found, images)
        return nll, -critic(found).mean(), latents.square().mean(), found

    def theirs():
        nll, g, codebook, _ = losses()
        weight = norm_ratio(*(torch.autograd.grad(x, last, retain_graph=True)[0] for x in (nll, g)))
        (nll + weight * g + codebook).backward()

    def ours():
        nll, g, codebook, found = losses()
        gf.balanced_backward([nll, g], found, last, extra_loss=codebook)

    def frozen():
        with gf.frozen(critic):
            theirs()

    def flops(step):
        model.zero_grad()
        critic.zero_grad()
        with CountFlops() as counter:
            step()
        return counter.total

    steps = {step: flops(step) for step in (theirs, frozen, ours)}
    assert steps[theirs] / steps[ours] > gain
    assert steps[frozen] / steps[ours] > gain_over_frozen


# ---- a compiled model --------------------------------------------------------------------------


def test_a_compiled_last_layer_is_found_and_an_eager_one_is_right(fresh_compiler):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.last(self.body(x).tanh())

    model, x = Model(), torch.randn(4, 3)

    def step(y):
        model.zero_grad()
        gf.balanced_backward([y.square().mean(), y.sum()], y, model.last.weight)
        return [p.grad.clone() for p in model.parameters()]

    eager = step(model(x))
    whole = torch.compile(model, backend="aot_eager")(x)
    with pytest.warns(UserWarning, match="compile the layers before the last one"):
        step(whole)
    body = torch.compile(lambda x: model.body(x).tanh(), backend="aot_eager")(x)
    assert_close(step(model.last(body)), eager, 1e-6)


def test_it_is_not_for_compiled_code(fresh_compiler):
    def step(x):
        y = model(x)
        gf.balanced_backward([y.sum()], y)
        return y

    model = nn.Linear(2, 2)
    with pytest.raises(Exception, match="outside of the compiled function"):
        torch.compile(step, backend="eager")(torch.ones(1, 2))
