"""``adopt``: what it proposes runs, and trains as the script did."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

import ganloss_fast as gf
from ganloss_fast.adopt.script import propose

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))
# What is said to be left alone in each script, beside what is rewritten.
LEFT = {
    "flipped_labels",
    "left_alone",
    "numpy_statistics",
    "penalty_with_log",
    "vocoder_lists",
    "wgan_clip",
}
LOGS = ("history", "drift", "shift")  # what a script keeps beside its networks


def trained(source: str) -> list[torch.Tensor]:
    """Every parameter and every figure logged after ten steps in double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        names: dict = {"STEPS": 10, "__name__": "script"}
        exec(compile(source, "script", "exec"), names)
    finally:
        torch.set_default_dtype(torch.float32)
    modules = [value for value in names.values() if isinstance(value, nn.Module)]
    logs = [torch.as_tensor(figures(names[name])).detach() for name in LOGS if name in names]
    return [*logs, *(p.detach() for module in modules for p in module.parameters())]


def figures(log):
    return [list(values) for values in log.values()] if isinstance(log, dict) else log


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_what_is_proposed_trains_as_the_script_did(path):
    source = path.read_text()
    proposal = propose(source, path.name)
    assert bool(proposal.changes) == (path.stem != "left_alone")
    assert bool(proposal.left_alone) == (path.stem in LEFT)
    for ours, theirs in zip(trained(proposal.after), trained(source), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_there_are_a_dozen_styles():
    assert len(SCRIPTS) >= 12


def changed(path: str) -> str:
    source = (Path(__file__).parent / "scripts" / path).read_text()
    proposal = propose(source, path)
    return "\n".join(line for line in proposal.diff().splitlines() if line.startswith("+"))


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("dcgan_bce.py", ['gf.generator_loss(output, "bce")', 'False, "bce")']),
        ("hinge_spectral.py", ['gf.discriminator_loss(D(real), D(fake), "hinge")']),
        (
            "wgan_gp_function.py",
            [
                "gf.penalty_from_logits(d_interpolates, interpolates, gf.WGANGP(weight=1.0))",
                'gf.discriminator_loss(real_validity, fake_validity, "wasserstein") + lambda_gp',
                "discriminator(fake_imgs.detach())",
            ],
        ),
        ("softplus_r1.py", ["gf.penalty_from_logits(real_pred, real_img, gf.R1(gamma=2.0))"]),
        (
            "vocoder_lists.py",
            [
                'loss += gf.discriminator_loss(dr, dg, "least_squares")',
                "loss += gf.feature_matching_loss(fmap_r, fmap_g, detach_real=False)",
            ],
        ),
        (
            "flat_features.py",
            ["gf.feature_matching_loss(real_maps, fake_maps)", "gf.BCE(real_label=0.9)"],
        ),
        ("image_to_image.py", ["real_weight=0.5, fake_weight=0.5"]),
        ("root_penalty.py", ["10 * gf.penalty_from_logits", "eps=1e-12"]),
        ("pixel_penalty.py", ['norm="channel"', "fake_label=-1.0"]),
    ],
)
def test_the_lines_that_are_written(script, lines):
    new = changed(script)
    for line in lines:
        assert line in new, new


def test_what_is_left_alone_is_said_with_its_reason():
    proposal = propose((Path(__file__).parent / "scripts" / "left_alone.py").read_text())
    reasons = " ".join(remark.text for remark in proposal.left_alone)
    for part in (
        "target is no constant",
        "leave out the critic's sigmoid",
        "more than the penalty",
    ):
        assert part in reasons
    assert proposal.after == proposal.before


HEAD = "import torch\nimport torch.nn.functional as F\n"


@pytest.mark.parametrize(
    "body",
    [
        "x = F.relu(2 - a).mean()",  # another margin
        "x = F.relu(2 + a).mean()",
        "x = F.relu(a + 2).mean()",
        "x = F.relu(a - 1).mean()",  # another side of it
        "x = F.mse_loss(a, torch.ones_like(a), reduction='sum') + F.mse_loss(b, b * 0)",
        "x = F.mse_loss(a, other)",
        "x = a.mean(0) - b.mean(0)",  # not over all elements
        "x = F.softplus(a, beta=2).mean()",
        "for p, q in zip(a, b):\n    x += w * torch.mean(torch.abs(p - q))",
        "for p, q in zip(a, b):\n    x += torch.mean(torch.abs(p - r))",
        "for p, q in zip(a, b):\n    y.append(p)\n    x += torch.mean(torch.abs(p - q))",
        "g = torch.autograd.grad(y.sum(), a)[0]\nx = g.pow(2).sum(1).mean()",  # no graph
        "g = torch.autograd.grad(y, a, v, create_graph=True)[0]\nx = g.pow(2).sum(1).mean()",
        "x = (a ** 2).mean()",
        "x = F.relu(1 - a).sum()",
        "def step(a, t):\n    x = F.mse_loss(a, t)\n    t = torch.ones_like(a)\n    return x",
        "t = torch.ones(3)\nfor t in targets:\n    x = F.mse_loss(a, t)",
        "t, u = targets\nx = F.mse_loss(a, t)",
        "c = torch.nn.MSELoss()\ndef step(c, a):\n    return c(a, torch.ones_like(a))",
    ],
)
def test_what_is_not_the_loss_stays(body):
    source = HEAD + body + "\n"
    assert propose(source).after == source


def test_the_order_in_which_critics_run_is_kept():
    """They may draw random numbers."""
    source = HEAD + "x = F.relu(1 + D(b)).mean() + F.relu(1 - D(a)).mean()\n"
    after = propose(source).after
    assert "discriminator_loss(fake=D(b), real=D(a), loss=" in after
    ast.parse(after)


def test_what_an_inner_function_reads_stays():
    source = HEAD + (
        "def step(D, a, b):\n"
        "    real = F.relu(1 - D(a)).mean()\n"
        "    fake = F.relu(1 + D(b)).mean()\n"
        "    def log():\n"
        "        print(real.item())\n"
        "    return real + fake, log\n"
    )
    assert "    real = " in propose(source).after


@pytest.mark.parametrize(
    ("between", "real_logits", "fake_logits"),
    [
        ("optimizer.step()", "D(a)", "D(b)"),
        ("logits = D(b)", "logits", "logits"),  # another one than before
    ],
)
def test_what_acts_on_a_side_keeps_the_sides_apart(between, real_logits, fake_logits):
    source = HEAD + (
        "def step(D, a, b, optimizer):\n"
        "    logits = D(a)\n"
        f"    real = F.relu(1 - {real_logits}).mean()\n"
        f"    {between}\n"
        f"    fake = F.relu(1 + {fake_logits}).mean()\n"
        "    return real + fake\n"
    )
    after = propose(source).after
    assert after.count("discriminator_side_loss") == 2


def test_an_adaptive_weight_is_told_of_the_one_backward():
    source = HEAD + "def calculate_adaptive_weight(self, nll_loss, g_loss):\n    return 1.0\n"
    (remark,) = propose(source).left_alone
    assert "gf.balanced_backward" in remark.text
    assert hasattr(gf, "balanced_backward")


def test_the_generators_gradients_are_needed_where_nobody_zeroes_them():
    source = (Path(__file__).parent / "scripts" / "wgan_gp_function.py").read_text()
    without = source.replace("    optimizer_G.zero_grad()\n", "")
    proposal = propose(without)
    assert ".detach()" not in proposal.after
    assert any("not detached" in remark.text for remark in proposal.left_alone)
