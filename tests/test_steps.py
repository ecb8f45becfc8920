"""generator_backward and discriminator_backward: one side's gradients, and nothing else's."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import ganloss_fast as gf
from ganloss_fast.diagnose import CountFlops


def networks(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
    critic = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    return generator.to(dtype), critic.to(dtype)


def optimizers(generator: nn.Module, critic: nn.Module) -> list[torch.optim.Optimizer]:
    return [torch.optim.Adam(module.parameters(), 1e-2) for module in (generator, critic)]


def as_written(generator, critic, of_generator, of_critic, noise, real) -> None:
    """Generator first, and the critic runs on the fake samples twice."""
    fake = generator(noise)
    of_generator.zero_grad()
    gf.generator_loss(critic(fake), "bce").backward()
    of_generator.step()
    of_critic.zero_grad()
    gf.discriminator_loss(critic(real), critic(fake.detach()), "bce").backward()
    of_critic.step()


def separate(generator, critic, of_generator, of_critic, noise, real) -> None:
    fake = generator(noise)
    of_generator.zero_grad()
    gf.generator_backward(gf.generator_loss(critic(fake), "bce"), generator)
    of_generator.step()
    of_critic.zero_grad()
    loss = gf.discriminator_loss(critic(real), critic(fake.detach()), "bce")
    gf.discriminator_backward(loss, critic)
    of_critic.step()


def shared(generator, critic, of_generator, of_critic, noise, real) -> None:
    logits = critic(generator(noise))
    of_generator.zero_grad()
    loss = gf.generator_loss(logits, "bce")
    gf.generator_backward(loss, generator, shared_critic=critic)
    of_generator.step()
    of_critic.zero_grad()
    loss = gf.discriminator_loss(critic(real), logits, "bce")
    gf.discriminator_backward(loss, critic, shares_forward=True)
    of_critic.step()


def trained(step: Callable[..., None], steps: int = 50) -> list[Tensor]:
    generator, critic = networks()
    moved = optimizers(generator, critic)
    draws = torch.Generator().manual_seed(1)
    for _ in range(steps):
        noise = torch.randn(6, 3, dtype=torch.float64, generator=draws)
        real = torch.randn(6, 4, dtype=torch.float64, generator=draws)
        step(generator, critic, *moved, noise, real)
    return [p.detach() for module in (generator, critic) for p in module.parameters()]


@pytest.mark.parametrize("step", [separate, shared])
def test_fifty_steps_are_those_that_one_writes_by_hand(step):
    for ours, theirs in zip(trained(step), trained(as_written), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_every_backward_fills_one_side():
    generator, critic = networks()
    logits = critic(generator(torch.randn(6, 3).double()))
    gf.generator_backward(logits.sum(), generator, shared_critic=critic)
    assert all(p.grad is None for p in critic.parameters())
    before = [p.grad.clone() for p in generator.parameters()]
    gf.discriminator_backward(logits.square().sum(), critic, shares_forward=True)
    assert all(p.grad is not None for p in critic.parameters())
    assert all(torch.equal(p.grad, g) for p, g in zip(generator.parameters(), before))


def test_gradients_are_added_to_what_is_there():
    generator, critic = networks()
    noise = torch.randn(6, 3).double()
    for _ in range(2):
        gf.generator_backward(critic(generator(noise)).sum(), generator)
    ours = [p.grad.clone() for p in generator.parameters()]
    generator.zero_grad()
    (2 * critic(generator(noise)).sum()).backward()
    for a, p in zip(ours, generator.parameters()):
        torch.testing.assert_close(a, p.grad)


def test_several_modules_learn_together():
    generator, critic = networks()
    head = nn.Linear(4, 4).double()
    gf.generator_backward(
        critic(head(generator(torch.randn(6, 3).double()))).sum(), generator, head
    )
    assert generator[0].weight.grad is not None
    assert head.weight.grad is not None


def test_a_penalty_is_part_of_the_discriminators_backward():
    _, critic = networks(torch.float32)
    other = copy.deepcopy(critic)
    real, fake = torch.randn(2, 6, 4)

    def loss(model, chunk_size=None):
        how = gf.Differentiation(chunk_size=chunk_size)
        penalty = gf.gradient_penalty(model, real, fake, alpha=0.3, how=how)
        return gf.discriminator_loss(model(real), model(fake), "hinge") + penalty

    loss(other).backward()
    for chunk_size in (None, 2):
        critic.zero_grad()
        gf.discriminator_backward(loss(critic, chunk_size), critic)
        for p, q in zip(critic.parameters(), other.parameters()):
            torch.testing.assert_close(p.grad, q.grad)


def test_a_grad_scaler_is_used_as_ever():
    results = []
    for step in (as_written, shared):
        generator, critic = networks(torch.float32)
        moved = optimizers(generator, critic)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        draws = torch.Generator().manual_seed(1)
        for _ in range(4):
            fake = generator(torch.randn(6, 3, generator=draws))
            real = torch.randn(6, 4, generator=draws)
            logits = critic(fake)
            for optimizer in moved:
                optimizer.zero_grad()
            loss = scaler.scale(gf.generator_loss(logits, "bce"))
            if step is shared:
                gf.generator_backward(loss, generator, shared_critic=critic)
            else:
                loss.backward()
                moved[1].zero_grad()
            scaler.step(moved[0])
            scaler.update()
            if step is shared:
                loss = scaler.scale(gf.discriminator_loss(critic(real), logits, "bce"))
                gf.discriminator_backward(loss, critic, shares_forward=True)
            else:
                logits = critic(fake.detach())
                scaler.scale(gf.discriminator_loss(critic(real), logits, "bce")).backward()
            scaler.step(moved[1])
            scaler.update()
        results.append([p.detach() for m in (generator, critic) for p in m.parameters()])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_shares_a_forward_too(dtype):
    """Gradients of the two sides meet in half precision where one region casts the weights for
    both, and in float32 where each step has its own: equal to the rounding of the former."""
    gradients = []
    for share in (False, True):
        generator, critic = networks(torch.float32)
        noise, real = torch.randn(6, 3), torch.randn(6, 4)
        torch.manual_seed(2)
        with torch.autocast("cpu", dtype):
            fake = generator(torch.ones_like(noise))
            logits = critic(fake)
            loss = gf.generator_loss(logits, "hinge")
        gf.generator_backward(loss, generator, shared_critic=critic if share else ())
        with torch.autocast("cpu", dtype):
            if not share:
                logits = critic(fake.detach())
            loss = gf.discriminator_loss(critic(torch.ones_like(real)), logits, "hinge")
        gf.discriminator_backward(loss, critic, shares_forward=share)
        gradients.append([p.grad for m in (generator, critic) for p in m.parameters()])
    for a, b in zip(*gradients):
        assert (a - b).norm() <= 2 * torch.finfo(dtype).eps * b.norm()


# ---- what it costs -----------------------------------------------------------------------------


def test_a_third_of_the_critics_arithmetic_is_left_out_and_a_forward_shared():
    """Of a critic whose layers all have a gradient of their input, in forward passes of it:
    as written 9 (3 each for fake and real in its own step, 3 through it in the generator's),
    separate 8 less the first layers' input gradients, shared 7 less those."""
    generator = nn.Linear(4, 64)
    critic = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(8)), nn.Linear(64, 1))
    noise, real = torch.randn(6, 4), torch.randn(6, 64)
    with CountFlops() as forward:
        critic(real)
    counts = {}
    for step in (as_written, separate, shared):
        moved = optimizers(generator, critic)
        with CountFlops() as counter:
            step(generator, critic, *moved, noise, real)
        counts[step] = counter.total / forward.total
    assert counts[as_written] == pytest.approx(9, rel=0.06)
    assert counts[as_written] - counts[separate] == pytest.approx(1, rel=0.03)
    assert counts[separate] - counts[shared] == pytest.approx(1, rel=0.2)


# ---- where two steps cannot share a forward ----------------------------------------------------


@pytest.mark.parametrize(
    "apply", [parametrizations.spectral_norm, torch.nn.utils.spectral_norm], ids=["new", "old"]
)
@pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated")
def test_a_spectral_norm_that_moves_is_refused(apply):
    generator, critic = networks(torch.float32)
    critic[0] = apply(critic[0])
    loss = critic(generator(torch.randn(6, 3))).sum()
    with pytest.raises(ValueError, match="a spectral norm in training mode"):
        gf.generator_backward(loss, generator, shared_critic=critic)
    critic.eval()
    loss = critic(generator(torch.randn(6, 3))).sum()
    gf.generator_backward(loss, generator, shared_critic=[critic])


@pytest.mark.parametrize(
    ("layer", "message"),
    [(nn.BatchNorm1d(8), "running statistics"), (nn.Dropout(0.5), "one dropout mask")],
)
def test_what_two_forwards_do_otherwise_is_said(layer, message):
    generator, critic = networks(torch.float32)
    critic.insert(1, layer)
    loss = critic(generator(torch.randn(6, 3))).sum()
    with pytest.warns(UserWarning, match=message):
        gf.generator_backward(loss, generator, shared_critic=critic)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.generator_backward(critic(generator(torch.randn(6, 3))).sum(), generator)


def test_a_critic_that_moved_in_between_is_an_error_of_autograd():
    generator, critic = networks()
    logits = critic(generator(torch.randn(6, 3).double()))
    gf.discriminator_backward(logits.square().sum(), critic, shares_forward=True, retain_graph=True)
    optimizers(generator, critic)[1].step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gf.generator_backward(logits.sum(), generator)


def test_what_fsdp_shards_is_refused(monkeypatch):
    generator, critic = networks()
    loss = critic(generator(torch.randn(6, 3).double())).sum()
    monkeypatch.setattr("ganloss_fast.steps.is_sharded", lambda module: module is critic[0])
    with pytest.raises(ValueError, match=r"discriminators: FSDP shards it.*loss.backward\(\)"):
        gf.discriminator_backward(loss, critic, shares_forward=True)
    with pytest.raises(ValueError, match="shared_critic: FSDP shards it"):
        gf.generator_backward(loss, generator, shared_critic=critic)


def test_a_reentrant_checkpoint_refuses_and_the_other_kind_learns_alike():
    from torch.utils.checkpoint import checkpoint

    generator, critic = networks()
    noise = torch.randn(6, 3).double()
    gf.generator_backward(critic(generator(noise)).sum(), generator)
    wanted = [p.grad.clone() for p in generator.parameters()]
    generator.zero_grad()
    loss = checkpoint(critic, generator(noise), use_reentrant=False).sum()
    gf.generator_backward(loss, generator, shared_critic=critic)
    for p, gradient in zip(generator.parameters(), wanted):
        torch.testing.assert_close(p.grad, gradient)
    loss = checkpoint(critic, generator(noise), use_reentrant=True).sum()
    with pytest.raises(RuntimeError, match="inputs"):
        gf.generator_backward(loss, generator)


# ---- mistakes ----------------------------------------------------------------------------------


def test_samples_that_were_not_detached_are_spoken_of():
    generator, critic = networks()
    noise = torch.randn(6, 3).double()
    with pytest.warns(UserWarning, match=r"shape \[\d.*detach the fake samples"):
        gf.discriminator_backward(critic(generator(noise)).sum(), critic)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.discriminator_backward(critic(generator(noise).detach()).sum(), critic)
        inputs = noise.clone().requires_grad_()  # for R1: a leaf, but nobody's parameter
        gf.discriminator_backward(
            critic(generator[0](noise).detach()[:, :4] + inputs.sum()).sum(), critic
        )


def test_a_generator_that_is_not_reached_is_an_error():
    generator, critic = networks()
    fake = generator(torch.randn(6, 3).double())
    with pytest.raises(ValueError, match="does not reach the generator"):
        gf.generator_backward(critic(fake.detach()).sum(), generator)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g, c, x: gf.generator_backward(x, g), ValueError, "one element"),
        (lambda g, c, x: gf.generator_backward(1.0, g), TypeError, "loss: expected a tensor"),
        (lambda g, c, x: gf.generator_backward(x.sum().detach(), g), ValueError, "no grad"),
        (lambda g, c, x: gf.generator_backward(x.sum()), TypeError, "generators: expected one"),
        (lambda g, c, x: gf.discriminator_backward(x.sum()), TypeError, "discriminators: expected"),
        (lambda g, c, x: gf.discriminator_backward(x.sum(), [c]), TypeError, "Unpack it"),
        (
            lambda g, c, x: gf.discriminator_backward(x.sum(), c.requires_grad_(False)),
            ValueError,
            "Is it frozen",
        ),
        (
            lambda g, c, x: gf.generator_backward(x.sum(), g, shared_critic=c.forward),
            TypeError,
            "shared_critic: expected",
        ),
        (
            lambda g, c, x: gf.discriminator_backward(x.sum(), c, shares_forward=1),
            TypeError,
            "shares_forward: expected True or False",
        ),
    ],
)
def test_bad_input_is_explained(call, error, message):
    generator, critic = networks()
    with pytest.raises(error, match=message):
        call(generator, critic, critic(generator(torch.randn(6, 3).double())))


def test_it_is_not_for_compiled_code(fresh_compiler):
    generator, _ = networks()

    def step(x):
        y = generator(x).sum()
        gf.generator_backward(y, generator)
        return y

    with pytest.raises(Exception, match="outside of the compiled function"):
        torch.compile(step, backend="eager")(torch.ones(1, 3).double())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo
@pytest.mark.parametrize("compiled", ["generator", "critic", "both"])
def test_compiled_networks_learn_alike(fresh_compiler, compiled):
    generator, critic = networks()
    noise, real = torch.randn(6, 3).double(), torch.randn(6, 4).double()
    separate(generator, critic, *optimizers(generator, critic), noise, real)
    wanted = [p.grad for m in (generator, critic) for p in m.parameters()]
    generator, critic = networks()
    g = torch.compile(generator, backend="aot_eager") if compiled != "critic" else generator
    c = torch.compile(critic, backend="aot_eager") if compiled != "generator" else critic
    separate(g, c, *optimizers(generator, critic), noise, real)
    for a, b in zip([p.grad for m in (generator, critic) for p in m.parameters()], wanted):
        torch.testing.assert_close(a, b)
