"""Wrong critics, samples and options: what the penalties say."""

from __future__ import annotations

import warnings

import by_keyword
import pytest
import torch
from critics import patchgan
from penalty_oracle import samples, small_critic
from torch import nn
from torch.autograd import forward_ad

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
        ({"at": "middle"}, ValueError, "at: expected one of mixed"),
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
        ({"alpha": "pixel", "at": "real"}, ValueError, "alpha: expected one of"),
        ({"rng": 5, "at": "real"}, TypeError, "rng: expected a torch.Generator"),
        ({"rng": 5, "at": gf.AroundReal()}, TypeError, "rng: expected a torch.Generator"),
        ({"one_sided": "no"}, TypeError, "one_sided: expected True or False"),
        ({"output_weights": [float("nan")]}, ValueError, r"output_weights\[0\]: expected a finite"),
        ({"output_weights": ["a"]}, TypeError, r"output_weights\[0\]: expected a number"),
        ({"output_weights": 2.0}, TypeError, "output_weights: expected a list of numbers"),
        ({"batch_args": [0]}, ValueError, "batch_args: 0 is neither"),
        ({"mask": torch.ones(5)}, ValueError, r"broadcasts to the samples, \[4, 3, 8, 8\], got"),
        ({"mask": torch.ones(2, 4, 3, 8, 8)}, ValueError, r"broadcasts to the samples"),
        ({"mask": torch.ones(8, 8).int()}, TypeError, "mask: expected float16"),
        ({"mask": "all"}, TypeError, "mask: expected a tensor"),
        ({"mask": [None, None]}, ValueError, "mask: expected one for each of the 1 inputs"),
    ],
)
def test_a_wrong_option_is_explained(options, error, message):
    with pytest.raises(error, match=message):
        by_keyword.gradient_penalty(small_critic(), *samples(), **options)


def test_missing_samples_are_explained():
    with pytest.raises(ValueError, match="fake: at='mixed' needs fake samples"):
        gf.gradient_penalty(small_critic(), samples()[0])


def test_logits_need_inputs_that_require_grad():
    critic = small_critic()
    with pytest.raises(ValueError, match=r"Call inputs.requires_grad_\(\) before the critic"):
        gf.penalty_from_logits(critic(samples()[0]), samples()[0])


@pytest.mark.parametrize(
    ("clamp", "error", "message"),
    [
        (1.0, TypeError, "clamp: expected two numbers"),
        ((1, 0), ValueError, "clamp: expected the lower bound first"),
        ((0, float("nan")), ValueError, r"clamp\[1\]: expected a finite number"),
    ],
)
def test_wrong_bounds_of_dragan_samples_are_explained(clamp, error, message):
    with pytest.raises(error, match=message):
        gf.AroundReal(clamp=clamp)


def test_one_mask_cannot_serve_several_inputs():
    x = torch.randn(4, 3)
    with pytest.raises(
        ValueError, match=r"mask: expected one for each of the 2 inputs .* a tensor"
    ):
        gf.gradient_penalty(lambda a, b: a + b, (x, x), at="real", mask=torch.ones(4, 1))


def test_labels_among_the_inputs_are_pointed_to_critic_args():
    with pytest.raises(TypeError, match=r"inputs\[1\]: .*Labels and the like go into critic_args"):
        gf.r1_penalty(lambda a, b: a, (torch.randn(4, 3), torch.arange(4)))


def test_inputs_of_one_number_for_each_sample_are_taken():
    x, level = torch.randn(4, 3), torch.rand(4)
    penalty = gf.r1_penalty(lambda a, b: 2 * a.sum(1) + 3 * b, (x, level), weight=1)
    assert penalty == 3 * 4 + 9


@pytest.mark.parametrize("options", [{}, {"reduction": "max"}, {"eps": 1.0}, {"chunk_size": 2}])
def test_an_empty_batch_is_refused(options):
    with pytest.raises(ValueError, match=r"real: expected at least one sample, got shape \[0, 3"):
        by_keyword.gradient_penalty(small_critic(), samples()[0][:0], at="real", **options)


def test_a_detached_output_among_several_counts_as_one():
    critic = small_critic()
    x, _ = samples()
    run = lambda z: [critic(z), critic(z).detach()]  # noqa: E731
    wanted = gf.r1_penalty(critic, x)
    assert torch.equal(gf.r1_penalty(gf.Call(run, output_weights=[1, 2]), x), wanted)
    with pytest.raises(ValueError, match="expected one for each of the 2 outputs"):
        gf.r1_penalty(gf.Call(run, output_weights=[1]), x)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda c, x: (c(x), x), TypeError, "logits: got a tuple of 2"),
        (lambda c, x: c(x).detach(), ValueError, "logits: they have no graph"),
        (lambda c, x: c(torch.ones_like(x)), ValueError, "inputs: the logits were not computed"),
        (lambda c, x: [], ValueError, "logits: got an empty sequence"),
    ],
)
def test_wrong_logits_are_explained(make, error, message):
    x = samples()[0].requires_grad_()
    with pytest.raises(error, match=message):
        gf.penalty_from_logits(make(small_critic(), x), x)


def test_samples_of_inference_mode_are_refused():
    with torch.inference_mode():
        x, _ = samples()
        with pytest.raises(RuntimeError, match=r"torch.inference_mode\(\) switches off"):
            gf.r1_penalty(small_critic(), x)
    with pytest.raises(RuntimeError, match=r"clone\(\) samples that were made"):
        gf.r1_penalty(small_critic(), x)
    gf.r1_penalty(small_critic(), x.clone()).backward()


def attention(x):
    q = x.unflatten(1, (4, 2))[:, None]
    return nn.functional.scaled_dot_product_attention(q, q, q)


@pytest.mark.parametrize("operation", [attention, nn.functional.hardsigmoid])
@pytest.mark.parametrize(
    "penalise",
    [
        lambda c, x: gf.r1_penalty(c, x, how=gf.Differentiation(chunk_size=2)),
        lambda c, x: gf.diagnose(c, x, quiet=True),
    ],
    ids=["chunks", "diagnose"],
)
def test_operations_without_a_second_derivative_are_explained(operation, penalise):
    linear = nn.Linear(8, 8)
    with pytest.raises(RuntimeError, match=r"derivative for .* use approximate_r1_penalty"):
        penalise(lambda x: operation(linear(x)), torch.randn(4, 8))


@pytest.mark.parametrize(
    ("critic", "error", "message"),
    [
        ("x", TypeError, "critic: expected a function or a module"),
        (lambda x: (x, x), TypeError, "critic: it returned a tuple of 2"),
        (lambda x: x.detach(), ValueError, "may be detached"),
        (lambda x: torch.ones(2, requires_grad=True), ValueError, "does not depend on its input"),
        (InPlace(), ValueError, "changes its input in place"),
    ],
)
def test_diagnose_explains_what_it_cannot_penalise(critic, error, message):
    x = torch.ones(2, 3)
    with pytest.raises(error, match=message):
        gf.diagnose(critic, x, quiet=True)
    assert torch.equal(x, torch.ones(2, 3))


# ---- samples that interact ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [lambda c: c, lambda c: lambda x: c(x), lambda c: c.forward],
    ids=["module", "lambda", "bound method"],
)
def test_batch_norm_under_a_per_sample_penalty_warns_once(wrap):
    critic = patchgan(4, nn.BatchNorm2d)
    x = torch.randn(2, 3, 32, 32)
    with pytest.warns(UserWarning, match="it runs batch normalisation, BatchNorm2d.8") as record:
        gf.r1_penalty(wrap(critic), x)
    assert [warning.filename for warning in record] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.r1_penalty(wrap(critic), x)


def test_frozen_batch_norm_does_not_warn_until_it_trains():
    critic = patchgan(4, nn.BatchNorm2d)
    x = torch.randn(2, 3, 32, 32)
    critic.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.r1_penalty(critic, x)
    critic.train()
    with pytest.warns(UserWarning, match="batch normalisation"):
        gf.r1_penalty(critic, x)
    other = patchgan(4, nn.BatchNorm2d).train()
    other[3].eval()
    other[6].eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.r1_penalty(other, x)


DUAL = {
    "samples": lambda c, x: gf.r1_penalty(c, dual(x)),
    "samples, in chunks": lambda c, x: gf.r1_penalty(
        c, dual(x), how=gf.Differentiation(chunk_size=1)
    ),
    "logits": lambda c, x: gf.penalty_from_logits(c(dual(x.requires_grad_())), x),
    "parameters": lambda c, x: gf.r1_penalty(lambda z: c(z) * dual(torch.ones(1)), x),
}


def dual(x):
    return forward_ad.make_dual(x, torch.ones_like(x))


@pytest.mark.parametrize("name", DUAL)
def test_forward_mode_tangents_are_refused_not_dropped(name):
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        DUAL[name](small_critic(), samples()[0])


def test_torch_func_jvp_is_right_or_refused(native):
    """Right where the tangent does not reach the fused op: a piecewise linear critic."""
    critic, x = small_critic(torch.float64), samples(torch.float64)[0]
    _, tangent = torch.func.jvp(lambda z: gf.r1_penalty(critic, z), (x,), (torch.ones_like(x),))
    assert tangent == 0
    smooth = torch.nn.Sequential(critic, torch.nn.Tanh())
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda z: gf.r1_penalty(smooth, z), (x,), (torch.ones_like(x),))
