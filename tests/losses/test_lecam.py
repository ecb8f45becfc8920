"""LeCam: its two forms, and the moving averages that stay on the device."""

from __future__ import annotations

import copy

import pytest
import torch
from oracle import DTYPES, EPSILON, assert_close, draw
from torch import Tensor

import ganloss_fast as gf

pytestmark = pytest.mark.every_implementation


def per_logit(r: Tensor, f: Tensor, real_anchor: float, fake_anchor: float) -> Tensor:
    """As google/lecam-gan writes it."""
    return (r - fake_anchor).relu().pow(2).mean() + (real_anchor - f).relu().pow(2).mean()


def on_means(r: Tensor, f: Tensor, real_anchor: float, fake_anchor: float) -> Tensor:
    """As 1d-tokenizer writes it."""
    return (r.mean() - fake_anchor).relu().pow(2) + (real_anchor - f.mean()).relu().pow(2)


FORMS = {"logits": per_logit, "means": on_means}


def logits(dtype: torch.dtype = torch.float64, *shape: int) -> tuple[Tensor, Tensor]:
    shape = shape or (6, 1, 5, 5)
    return draw(*shape, dtype=dtype).requires_grad_(), draw(*shape, dtype=dtype).requires_grad_()


def with_gradients(value: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [value, *torch.autograd.grad(value, inputs, retain_graph=True)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradients_are_the_formula(implementation, form, dtype):
    real, fake = logits(dtype)
    ours = gf.lecam_regularization(real, fake, 0.7, -0.4, form=form, weight=0.3)
    wide = [t.detach().double().requires_grad_() for t in (real, fake)]
    truth = 0.3 * FORMS[form](*wide, 0.7, -0.4)
    assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for mine, right in zip(with_gradients(ours, real, fake), with_gradients(truth, *wide)):
        assert_close(mine, right, 8 * EPSILON[mine.dtype])


@pytest.mark.parametrize("form", FORMS)
def test_outputs_add_up_each_with_its_own_anchor(implementation, form):
    real, fake = logits()
    reals, fakes = [real, real[:2]], [fake, 3 * fake[:3]]
    anchors = torch.tensor([0.7, -0.1]), torch.tensor([-0.4, 0.2])
    ours = gf.lecam_regularization(reals, fakes, *anchors, form=form)
    truth = sum(
        FORMS[form](r, f, a.double(), b.double()) for r, f, a, b in zip(reals, fakes, *anchors)
    )
    for mine, right in zip(with_gradients(ours, real, fake), with_gradients(truth, real, fake)):
        assert_close(mine, right, 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_weight_keeps_its_gradient(implementation, form):
    real, fake = logits()
    weight = torch.tensor(0.3, requires_grad=True)
    ours = gf.lecam_regularization(real, fake, 0.7, -0.4, form=form, weight=weight)
    (gradient,) = torch.autograd.grad(ours, weight)
    assert_close(gradient, FORMS[form](real, fake, 0.7, -0.4), 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_second_derivatives(implementation, form):
    real, fake = logits(torch.float64, 3, 2)
    assert torch.autograd.gradgradcheck(
        lambda r, f: gf.lecam_regularization(r, f, 0.7, -0.4, form=form), (real, fake)
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(implementation, form, bad):
    real, fake = logits()
    spoiled = real.detach().clone()
    spoiled[0, 0, 0, 0] = bad
    assert not gf.lecam_regularization(spoiled, fake, 0.0, 0.0, form=form).isfinite()
    assert not gf.lecam_regularization(real, -spoiled, 0.0, 0.0, form=form).isfinite()


# ---- the module --------------------------------------------------------------------------------


class Plain:
    """The loop of a trainer, on Python numbers."""

    def __init__(self, decay, start_value, warm_up, form, update):
        self.real = self.fake = start_value
        self.decay, self.warm_up, self.form, self.update = decay, warm_up, form, update
        self.calls = 0

    def move(self, r, f):
        decay = 0.0 if self.calls < self.warm_up else self.decay
        self.calls += 1
        self.real = decay * self.real + (1 - decay) * r.mean().item()
        self.fake = decay * self.fake + (1 - decay) * f.mean().item()

    def __call__(self, r, f):
        if self.update == "before":
            self.move(r, f)
        result = FORMS[self.form](r, f, self.real, self.fake)
        if self.update == "after":
            self.move(r, f)
        return result


@pytest.mark.parametrize("update", ["before", "after"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("warm_up", [0, 2])
def test_the_averages_move_as_in_a_trainer(form, update, warm_up):
    options = {"decay": 0.9, "start_value": 0.25, "warm_up": warm_up}
    options |= {"form": form, "update": update}
    ours, plain = gf.LeCam(**options), Plain(**options)
    for _ in range(5):
        real, fake = logits(torch.float32)
        mine, theirs = ours(real, fake), plain(real, fake)
        torch.testing.assert_close(mine, theirs)
        for a, b in zip(with_gradients(mine, real, fake), with_gradients(theirs, real, fake)):
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(ours.real_average, torch.tensor([plain.real]))
        torch.testing.assert_close(ours.fake_average, torch.tensor([plain.fake]))


@pytest.mark.parametrize("form", FORMS)
def test_a_later_call_does_not_spoil_an_earlier_backward(form):
    lecam = gf.LeCam(decay=0.5, form=form, update="after")
    real, fake = logits(torch.float32)
    first = lecam(real, fake)
    lecam(real + 1, fake)
    plain = FORMS[form](real, fake, 0.0, 0.0)
    mine = torch.autograd.grad(first, (real, fake), create_graph=True)
    right = torch.autograd.grad(plain, (real, fake), create_graph=True)
    for a, b in zip(mine, right):
        torch.testing.assert_close(a, b)
    second = [
        torch.autograd.grad(sum(g.square().sum() for g in gradients), (real, fake))
        for gradients in (mine, right)
    ]
    for a, b in zip(*second):
        torch.testing.assert_close(a, b)


def test_fifty_steps_of_a_critic_are_those_of_the_plain_form():
    def trained(regularizer) -> Tensor:
        torch.manual_seed(3)
        critic = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
        for _ in range(50):
            r, f = critic(torch.randn(16, 4) + 1), critic(torch.randn(16, 4))
            loss = (1 - r).relu().mean() + (1 + f).relu().mean() + 0.3 * regularizer(r, f)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return torch.nn.utils.parameters_to_vector(critic.parameters())

    options = {"decay": 0.9, "start_value": 0.0, "warm_up": 5, "form": "logits", "update": "before"}
    torch.testing.assert_close(
        trained(gf.LeCam(**options)), trained(Plain(**options)), rtol=1e-3, atol=1e-5
    )


def test_the_averages_stand_still_in_eval_mode():
    lecam = gf.LeCam(decay=0.5, warm_up=1).eval()
    lecam(*logits(torch.float32))
    assert lecam.real_average == 0
    assert lecam.calls == 0


def test_a_batch_that_overflowed_is_not_in_the_averages_for_good():
    lecam = gf.LeCam(decay=0.5)
    real, fake = logits(torch.float32)
    assert not lecam(real * torch.inf, fake).isfinite()
    assert lecam(real * torch.nan, fake).isnan()
    assert lecam.real_average == 0
    assert lecam.fake_average != 0
    assert lecam(real, fake).isfinite()


def test_the_averages_are_saved_and_stay_in_float32():
    lecam = gf.LeCam(decay=0.999).bfloat16()
    lecam(*logits(torch.bfloat16))
    assert lecam.real_average.dtype == torch.float32
    assert lecam.real_average != 0  # in bfloat16, 1 + 0.001 is 1
    other = gf.LeCam()
    other.load_state_dict(lecam.state_dict())
    assert torch.equal(other.real_average, lecam.real_average)
    assert torch.equal(copy.deepcopy(lecam).fake_average, lecam.fake_average)


@pytest.mark.parametrize("form", FORMS)
def test_one_graph_under_the_compiler(fresh_compiler, form):
    eager, traced = gf.LeCam(form=form, warm_up=1), gf.LeCam(form=form, warm_up=1)
    compiled = torch.compile(traced, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        real, fake = logits(torch.float32)
        torch.testing.assert_close(compiled(real, fake), eager(real, fake))
    torch.testing.assert_close(traced.real_average, eager.real_average)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, f: gf.lecam_regularization(r, [f, f], 0, 0), "same number of outputs"),
        (lambda r, f: gf.lecam_regularization(r, f, torch.zeros(2), 0), "real_anchor"),
        (lambda r, f: gf.lecam_regularization(r, f, 0, float("nan")), "fake_anchor"),
        (lambda r, f: gf.lecam_regularization(r, f, 0, 0, form="mean"), "form"),
        (lambda r, f: gf.lecam_regularization(r.long(), f, 0, 0), "real"),
        (lambda r, f: gf.lecam_regularization([], f, 0, 0), "real"),
        (lambda r, f: gf.LeCam(decay=1.5), "decay"),
        (lambda r, f: gf.LeCam(warm_up=-1), "warm_up"),
        (lambda r, f: gf.LeCam(update="during"), "update"),
        (lambda r, f: gf.LeCam(process_group=3), "process_group"),
        (lambda r, f: gf.LeCam()([r, r], [f, f]), r"LeCam\(outputs=2\)"),
    ],
)
def test_wrong_calls_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(*logits())


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
@pytest.mark.parametrize("form", FORMS)
def test_a_group_of_one_process_is_none(form):
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        group = torch.distributed.group.WORLD
        ours, plain = gf.LeCam(form=form, process_group=group), gf.LeCam(form=form)
        real, fake = logits(torch.float32)
        mine, right = ours(real, fake), plain(real, fake)
        for a, b in zip(with_gradients(mine, real, fake), with_gradients(right, real, fake)):
            torch.testing.assert_close(a, b)
        assert torch.equal(ours.averages, plain.averages)
    finally:
        torch.distributed.destroy_process_group()
