"""The loss modules of taming and latent-diffusion beside their formulas in plain PyTorch."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import tokenizer_codebases as codebases
import torch
from drop_in_cases import DTYPES, TOLERANCE
from tokenizer_cases import assert_losses_agree, assert_same_log, images, module_of, networks

import ganloss_fast as gf
from ganloss_fast.compat import latent_diffusion, taming

CASES = [
    {},
    {"weight": 0.8, "codebook_weight": 0.5, "factor": 0.7, "disc_loss": "vanilla"},
    {"perceptual_weight": 0.0},
    {"start": 10},
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "learning"])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("cls", [taming, latent_diffusion], ids=["taming", "latent-diffusion"])
def test_the_generator_learns_what_it_would(cls, case, frozen, dtype):
    model, lpips, critic = networks(dtype)
    critic.requires_grad_(not frozen)
    x = images(dtype)
    y, latents = model(x)
    codebook = latents.square().mean(dim=(1, 2, 3))
    ours = module_of(cls.VQLPIPSWithDiscriminator, lpips, critic, case)
    plain = codebases.Taming(lpips, critic, **case)
    step = codebook, x, y, 0, 5, model.last.weight
    learning = [*model.parameters(), *([] if frozen else critic.parameters())]
    assert_losses_agree(lambda: ours(*step), lambda: plain(*step), learning, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("cls", [taming, latent_diffusion], ids=["taming", "latent-diffusion"])
def test_the_discriminator_learns_what_it_would(cls, case, dtype):
    model, lpips, critic = networks(dtype)
    x = images(dtype)
    y, latents = model(x)
    ours = module_of(cls.VQLPIPSWithDiscriminator, lpips, critic, case)
    plain = codebases.Taming(lpips, critic, **case)
    step = latents.mean(), x, y, 1, 5
    learning = [*model.parameters(), *critic.parameters()]
    assert_losses_agree(lambda: ours(*step), lambda: plain(*step), learning, dtype)


KL_CASES = [
    {},
    {"logvar": -0.4, "kl_weight": 1e-3, "weight": 0.5, "factor": 0.7, "disc_loss": "vanilla"},
    {"factor": 0.0},
    {"perceptual_weight": 0.0, "start": 10},
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "learning"])
@pytest.mark.parametrize(
    "weights", [None, 0.5, torch.rand(2, 1, 1, 1), torch.rand(3, 8, 8)], ids=["", "f", "B", "CHW"]
)
@pytest.mark.parametrize("case", KL_CASES, ids=str)
def test_a_variance_is_learned(case, weights, frozen, dtype):
    model, lpips, critic = networks(dtype)
    critic.requires_grad_(not frozen)
    x = images(dtype)
    y, latents = model(x)
    named = {("logvar_init" if k == "logvar" else k): v for k, v in case.items()}
    ours = module_of(latent_diffusion.LPIPSWithDiscriminator, lpips, critic, named).to(dtype)
    plain = codebases.LatentDiffusion(lpips, critic, **case).to(dtype)
    if isinstance(weights, torch.Tensor):
        weights = weights.to(dtype)
    step = x, y, codebases.Posterior(latents), 0, 5
    options = {"last_layer": model.last.weight, "weights": weights, "split": "val"}
    learning = [*model.parameters(), *([] if frozen else critic.parameters())]
    assert_losses_agree(
        lambda: ours(*step, **options), lambda: plain(*step, **options), learning, dtype
    )
    of_variance = [
        torch.autograd.grad(loss(*step, **options)[0], loss.logvar)[0] for loss in (ours, plain)
    ]
    torch.testing.assert_close(*of_variance, rtol=10 * TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_a_variance_may_be_frozen():
    model, lpips, critic = networks()
    critic.requires_grad_(False)
    x = images()
    y, latents = model(x)
    ours = module_of(latent_diffusion.LPIPSWithDiscriminator, lpips, critic, {}).double()
    plain = codebases.LatentDiffusion(lpips, critic).double()
    for loss in (ours, plain):
        loss.logvar.requires_grad_(False)
    step = x, y, codebases.Posterior(latents), 0, 5, model.last.weight
    learning = list(model.parameters())
    assert_losses_agree(partial(ours, *step), partial(plain, *step), learning, torch.float64)


def test_a_model_that_does_not_learn_is_an_error():
    """Nothing to measure: taming stops there too, with an assertion."""
    model, lpips, critic = networks()
    model.requires_grad_(False)
    x = images()
    y, latents = model(x)
    loss = module_of(latent_diffusion.LPIPSWithDiscriminator, lpips, critic, {}).double()
    with pytest.raises(RuntimeError, match="does not require grad"):
        loss(x, y, codebases.Posterior(latents), 0, 5, model.last.weight)


# ---- how often the networks run ----------------------------------------------------------------


class Counted(torch.nn.Module):
    """How often a network ran, and was walked back."""

    def __init__(self, network):
        super().__init__()
        self.network, self.forwards, self.backwards = network, 0, 0

    def forward(self, *inputs):
        self.forwards += 1
        found = self.network(*inputs)
        if found.requires_grad:
            found.register_hook(self._count)
        return found

    def _count(self, gradient):
        self.backwards += 1
        return gradient


@pytest.mark.parametrize(
    ("frozen", "discriminator_gradients", "walks"),
    [(True, True, 1), (False, False, 1), (False, True, 2)],
)
def test_networks_are_walked_once_where_nothing_else_learns(frozen, discriminator_gradients, walks):
    model, lpips, critic = networks()
    critic.requires_grad_(not frozen)
    lpips, judge = Counted(lpips), Counted(critic)
    loss = module_of(
        taming.VQLPIPSWithDiscriminator,
        lpips,
        judge,
        {},
        discriminator_gradients=discriminator_gradients,
    )
    x = images()
    y, latents = model(x)
    value, _ = loss(latents.mean(), x, y, 0, 0, model.last.weight)
    value.backward()
    assert (lpips.backwards, judge.backwards) == (walks, walks)
    has_gradient = any(p.grad is not None for p in critic.parameters())
    assert has_gradient == (not frozen and discriminator_gradients)
    loss(latents.mean(), x, y, 1, 0)
    assert (lpips.forwards, judge.forwards) == (1, 3)


def test_a_loss_that_was_walked_already_scales_and_repeats():
    model, lpips, critic = networks()
    critic.requires_grad_(False)
    loss = module_of(taming.VQLPIPSWithDiscriminator, lpips, critic, {})
    x = images()
    y, latents = model(x)
    value, _ = loss(latents.mean(), x, y, 0, 0, model.last.weight)
    once, twice = (
        torch.autograd.grad(scale * value, model.last.weight, retain_graph=True)[0]
        for scale in (1.0, 1024.0)
    )
    torch.testing.assert_close(1024.0 * once, twice)
    with pytest.raises(RuntimeError, match="create_graph: the gradient of this loss"):
        torch.autograd.grad(value, model.last.weight, create_graph=True)


@pytest.mark.parametrize("reason", ["hook", "float16", "images of the model", "lpips learns"])
def test_where_more_would_learn_the_published_walks_are_taken(reason):
    model, lpips, critic = networks()
    critic.requires_grad_(False)
    x = images().requires_grad_(reason == "images of the model")
    lpips.requires_grad_(reason == "lpips learns")
    ours = module_of(taming.VQLPIPSWithDiscriminator, Counted(lpips), critic, {})
    plain = codebases.Taming(lpips, critic)
    y, latents = model(x.detach())
    if reason == "hook":
        y.register_hook(lambda gradient: 2 * gradient)
    step = latents.mean(), x, y, 0, 0, model.last.weight
    learning = [*model.parameters(), *(t for t in (x, *lpips.parameters()) if t.requires_grad)]
    with torch.autocast("cpu", dtype=torch.float16, enabled=reason == "float16"):
        assert_losses_agree(lambda: ours(*step), lambda: plain(*step), learning, torch.float64)
    assert ours.perceptual_loss.backwards > 1


# ---- the rest of the contract ------------------------------------------------------------------


def test_a_conditional_discriminator_judges_both():
    model, lpips, critic = networks(channels=5)
    x, cond = images(), images(channels=2)
    y, latents = model(x)
    ours = module_of(taming.VQLPIPSWithDiscriminator, lpips, critic, {}, disc_conditional=True)
    plain = codebases.Taming(lpips, critic)
    for idx in (0, 1):
        step = latents.mean(), x, y, idx, 0, model.last.weight, cond, "val"
        learning = list(critic.parameters())
        assert_losses_agree(partial(ours, *step), partial(plain, *step), learning, torch.float64)
    with pytest.raises(ValueError, match=r"cond: with disc_conditional=True .* needs cond"):
        ours(latents.mean(), x, y, 1, 0)


def test_the_use_of_the_codebook_is_logged():
    model, lpips, critic = networks()
    x = images()
    y, _ = model(x)
    loss = module_of(
        latent_diffusion.VQLPIPSWithDiscriminator, lpips, critic, {}, n_classes=6, pixel_loss="l2"
    )
    codes = torch.tensor([[0, 0, 3], [3, 5, 0]])
    value, log = loss(None, x, y, 0, 0, model.last.weight, predicted_indices=codes)
    plain = codebases.Taming(lpips, critic, pixels="l2")
    wanted, wanted_log = plain(torch.zeros(1), x, y, 0, 0, model.last.weight)
    torch.testing.assert_close(value, wanted)
    shares = torch.nn.functional.one_hot(codes, 6).double().reshape(-1, 6).mean(0)
    perplexity = (-(shares * torch.log(shares + 1e-10)).sum()).exp()
    torch.testing.assert_close(log.pop("train/perplexity").double(), perplexity)
    assert log.pop("train/cluster_usage") == 3
    assert_same_log(log, wanted_log, torch.float64)


def test_a_validation_without_gradients_has_no_adaptive_weight():
    model, lpips, critic = networks()
    loss = module_of(taming.VQLPIPSWithDiscriminator, lpips, critic, {}).eval()
    x = images()
    with torch.no_grad():
        y, latents = model(x)
        value, log = loss(latents.mean(), x, y, 0, 0, model.last.weight, split="val")
    assert log["val/d_weight"] == 0.0
    torch.testing.assert_close(value, log["val/nll_loss"] + log["val/quant_loss"])
    loss.train()
    with torch.no_grad(), pytest.raises(RuntimeError, match="does not require grad"):
        loss(latents.mean(), x, y, 0, 0, model.last.weight)


def test_arguments_and_state_are_the_published_ones():
    _, lpips, critic = networks()
    wanted = {
        taming.VQLPIPSWithDiscriminator: [
            "disc_start", "codebook_weight", "pixelloss_weight", "disc_num_layers",
            "disc_in_channels", "disc_factor", "disc_weight", "perceptual_weight", "use_actnorm",
            "disc_conditional", "disc_ndf", "disc_loss",
        ],
        latent_diffusion.LPIPSWithDiscriminator: [
            "disc_start", "logvar_init", "kl_weight", "pixelloss_weight", "disc_num_layers",
            "disc_in_channels", "disc_factor", "disc_weight", "perceptual_weight", "use_actnorm",
            "disc_conditional", "disc_loss",
        ],
    }  # fmt: skip
    for cls, names in wanted.items():
        assert list(inspect.signature(cls).parameters)[: len(names)] == names
        module = cls(0, perceptual_loss=lpips, discriminator=critic)
        keys = [*(f"perceptual_loss.{k}" for k in lpips.state_dict())]
        keys += [f"discriminator.{k}" for k in critic.state_dict()]
        own = ["logvar"] if cls is latent_diffusion.LPIPSWithDiscriminator else []
        assert sorted(module.state_dict()) == sorted(keys + own)


def test_bad_arguments_are_explained():
    model, lpips, critic = networks()
    networks_of = {"perceptual_loss": lpips, "discriminator": critic}
    with pytest.raises(ValueError, match="disc_loss: expected one of hinge, vanilla, got 'wgan'"):
        taming.VQLPIPSWithDiscriminator(0, disc_loss="wgan", **networks_of)
    with pytest.raises(TypeError, match="discriminator: expected the network"):
        taming.VQLPIPSWithDiscriminator(0, perceptual_loss=lpips)
    with pytest.raises(TypeError, match="perceptual_loss: expected the network"):
        latent_diffusion.VQLPIPSWithDiscriminator(0, perceptual_loss="lpips", discriminator=critic)
    with pytest.raises(ValueError, match="pixel_loss: expected one of l1, l2"):
        latent_diffusion.VQLPIPSWithDiscriminator(0, pixel_loss="l3", **networks_of)
    loss = taming.VQLPIPSWithDiscriminator(0, **networks_of)
    x = images()
    y, latents = model(x)
    with pytest.raises(ValueError, match="optimizer_idx: expected 0"):
        loss(latents.mean(), x, y, 2, 0, model.last.weight)
    with pytest.raises(ValueError, match="last_layer: the adaptive weight needs"):
        loss(latents.mean(), x, y, 0, 0)
    networks_of["perceptual_loss"] = lambda one, other: torch.ones(7)
    loss = taming.VQLPIPSWithDiscriminator(0, **networks_of)
    with pytest.raises(ValueError, match="perceptual_loss: expected distances that can be added"):
        loss(latents.mean(), x, y, 0, 0, model.last.weight)


def test_the_reference_agrees():
    model, lpips, critic = networks()
    x = images()
    y, latents = model(x)
    loss = module_of(taming.VQLPIPSWithDiscriminator, lpips, critic, {})
    values = []
    for backend in ("auto", "reference"):
        with gf.use_backend(backend):
            values.append(loss(latents.mean(), x, y, 0, 0, model.last.weight)[0])
    torch.testing.assert_close(*values)


def test_a_generators_step_may_be_counted_on_the_meta_device():
    with torch.device("meta"):
        judge, decoder = torch.nn.Conv2d(3, 1, 4, 2, 1), torch.nn.Conv2d(3, 3, 3, padding=1)
        loss = taming.VQLPIPSWithDiscriminator(
            0,
            perceptual_loss=lambda x, y: (x - y).square().mean(dim=(1, 2, 3), keepdim=True),
            discriminator=judge.requires_grad_(False),
        )
        images = torch.rand(2, 3, 16, 16)
        total, _ = loss(torch.zeros(()), images, decoder(images), 0, 100, decoder.weight)
    total.backward()
    assert decoder.weight.grad.shape == decoder.weight.shape
