"""What looks like a loss and is not changed: one word for each, and none for anything else."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from adopted import said_of

GRADIENTS = (
    "last = D[2].weight\n"
    "nll_g = autograd.grad(D(x).mean(), last, retain_graph=True)[0]\n"
    "g_g = autograd.grad(D(-x).sum(), last, retain_graph=True)[0]\n"
)
RATIO = "nll_g.norm() / (g_g.norm() + 1e-4)"


def function(lines: str, last: str, name: str = "weight") -> str:
    body = "".join(f"    {line}\n" for line in lines.splitlines())
    return f"def {name}():\n{body}    return {last}\n"


@pytest.mark.parametrize(
    "body",
    [
        GRADIENTS + f"w = {RATIO}\n",
        function(GRADIENTS, RATIO),
        function("", "1") + GRADIENTS + f"w = {RATIO}\n",
        function(GRADIENTS, RATIO, "calculate_adaptive_weight"),
    ],
    ids=["here", "in a function", "below a function", "in the function of that name"],
)
def test_an_adaptive_weight_is_spoken_of_once(body):
    assert said_of(body).count("gf.balanced_backward") == 1


@pytest.mark.parametrize(
    "other",
    [
        "nll_g.norm() * g_g.norm()",
        "nll_g.sum() / g_g.sum()",
        "nll_g.norm() / g_g.sum()",
        "nll_g.norm() / last.norm()",
    ],
)
def test_what_is_no_ratio_of_two_gradients_norms_is_not_spoken_of(other):
    assert said_of(GRADIENTS + f"w = {other}\n") == ""
    assert said_of(function(GRADIENTS, other)) == ""


def test_a_gradient_in_a_larger_expression_is_spoken_of():
    body = "h = x.clone().requires_grad_()\n"
    body += "out = (autograd.grad(D(h).sum(), h, create_graph=True)[0].norm(2, 1) - 1).mean()\n"
    assert said_of(body) == "a gradient with a graph, in a place that is not followed"


@pytest.mark.parametrize(
    ("default", "word"),
    [
        ("F.relu(1 - D(x)).mean()", "a loss in a place that is not read"),
        ("F.mse_loss(D(x), torch.rand(6, 1))", "the target is no constant"),
        ("F.mse_loss(D(x), x[:, :1], reduction='sum')", "options"),
        ("(D(x) ** 2).mean()", ""),
        ("D(x).mean()", ""),
    ],
)
def test_a_loss_in_a_place_that_is_not_read_is_spoken_of(default, word):
    said = said_of(f"def step(loss={default}):\n    return loss\n")
    assert word in said
    assert bool(word) == bool(said)
