"""Gradient penalties: only where the statements are that and nothing else."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from adopted import left_alone, same_numbers

POINTS = "a = torch.rand(6, 1)\nh = (a * x + (1 - a) * G(z).detach()).requires_grad_()\n"
GRADIENT = POINTS + "g = autograd.grad(D(h).sum(), h, create_graph=True)[0]\n"

SIDE_EFFECTS = {
    "a log entry": "log = {}\n" + GRADIENT + "n = g.norm(2, dim=1)\n"
    "log['n'] = n.mean().item()\nout = ((n - 1) ** 2).mean() + log['n']\n",
    "an attribute": "class T:\n    pass\nt = T()\n" + GRADIENT + "n = g.norm(2, dim=1)\n"
    "t.norm = n.detach()\nout = ((n - 1) ** 2).mean()\nout = out + t.norm.sum()\n",
    "an augmented sum": "total = torch.zeros(())\n" + GRADIENT + "n = g.norm(2, dim=1)\n"
    "total += n.detach().mean()\nout = ((n - 1) ** 2).mean()\nout = out + total\n",
    "a call": "log = []\n" + GRADIENT + "n = g.norm(2, dim=1)\nlog.append(n.mean())\n"
    "out = ((n - 1) ** 2).mean()\n",
    "a draw": GRADIENT + "n = g.norm(2, dim=1)\nr = torch.rand(())\n"
    "out = ((n - 1) ** 2).mean() + r\n",
    "a use after a with": "with torch.enable_grad():\n"
    + "".join(f"    {line}\n" for line in GRADIENT.splitlines())
    + "    p = ((g.norm(2, dim=1) - 1) ** 2).mean()\nout = p + g.sum()\n",
    "a use in the round before": "seen, n = 0, torch.zeros(6)\nfor _ in range(2):\n"
    "    seen = seen + n.detach().sum()\n"
    + "".join(f"    {line}\n" for line in GRADIENT.splitlines())
    + "    n = g.norm(2, dim=1)\n    out = ((n - 1) ** 2).mean()\nout = out + seen\n",
    "a use in a closure": GRADIENT + "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n"
    "def show():\n    return g.sum()\nout = out + show()\n",
    "a use beside": GRADIENT + "out = ((g.norm(2, dim=1) - 1) ** 2).mean() + g.sum()\n",
    "a critic beside": GRADIENT + "out = N(x).mean() + ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "a list": GRADIENT + "kept = [g]\nout = ((g.norm(2, dim=1) - 1) ** 2).mean() + kept[0].sum()\n",
    "if it is wanted": GRADIENT
    + "out = ((g.norm(2, dim=1) - 1) ** 2).mean() if len(x) else x.sum()\n",
    "unless it is zero": GRADIENT + "out = len(x) and ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "later, or never": GRADIENT + "p = lambda: ((g.norm(2, dim=1) - 1) ** 2).mean()\nout = p()\n",
    "other rows": "rows = 3\n" + GRADIENT + "g = g.view(rows, -1)\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "rows of another tensor": "rows = x[:3]\n" + GRADIENT + "g = g.view(rows.size(0), -1)\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "rows of another tensor, by name": "n = x[:3].shape[0]\n" + GRADIENT + "g = g.reshape(n, -1)\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "several inputs": "k = x.clone().requires_grad_()\n" + POINTS + "points = [h, k]\n"
    "g = autograd.grad((D(h) + D(k)).sum(), points, create_graph=True)[0]\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "the second of two": "k = x.clone().requires_grad_()\n" + POINTS
    + "g = autograd.grad((D(h) + D(k)).sum(), (h, k), create_graph=True)[1]\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "a mean for the batch": POINTS + "g = autograd.grad(D(h).mean(), h, create_graph=True)[0]\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "weights on the outputs": POINTS + "w = torch.ones(6, 1)\nw[0] = 2\n"
    "g = autograd.grad(D(h), h, w, create_graph=True)[0]\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "arguments behind a star": POINTS + "given = (D(h).sum(), h)\n"
    "g = autograd.grad(*given, create_graph=True)[0]\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "weights behind a star": POINTS + "given = (h, 2 * torch.ones(6, 1))\n"
    "g = autograd.grad(D(h), *given, create_graph=True)[0]\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "a list behind a star": POINTS + "points = [h]\n"
    "g = autograd.grad(D(h).sum(), [*points], create_graph=True)[0]\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "a graph if it is wanted": POINTS + "wanted = False\n"
    "g = autograd.grad(D(h).sum(), h, create_graph=wanted)[0]\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean() + D(x).sum()\n",
    "a tuple of gradients": POINTS + "g = autograd.grad(D(h).sum(), h, create_graph=True)\n"
    "out = ((g[0].norm(2, dim=1) - 1) ** 2).mean()\n",
    "one of two points": POINTS + "g = autograd.grad(D(h).sum(), h if len(x) else x, "
    "create_graph=True)[0]\nout = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "a name within": POINTS + "g = autograd.grad((d := D(h)).sum(), h, create_graph=True)[0]\n"
    "out = ((g.norm(2, dim=1) - 1) ** 2).mean() + d.sum()\n",
    "over samples": GRADIENT + "out = ((g.norm(2, dim=0) - 1) ** 2).mean()\n",
    "over samples, squared": GRADIENT + "out = g.pow(2).sum(0).mean()\n",
    "over all": GRADIENT + "out = ((g.norm(2) - 1) ** 2).mean()\n",
    "in another precision": GRADIENT
    + "out = ((g.norm(2, dim=1, dtype=torch.float64) - 1) ** 2).mean()\n",
    "a dimension kept": GRADIENT + "out = ((g.norm(2, 1, True) - 1) ** 2).mean()\n",
    "another norm": GRADIENT + "out = ((g.norm(1, dim=1) - 1) ** 2).mean()\n",
    "a question between": "seen = 0.0\n" + GRADIENT + "n = g.norm(2, dim=1)\nif len(x):\n"
    "    seen = 1.0\nout = ((n - 1) ** 2).mean() + seen\n",
    "a check between": GRADIENT + "assert len(x)\nout = ((g.norm(2, dim=1) - 1) ** 2).mean()\n",
    "two penalties": GRADIENT + "n = g.norm(2, dim=1)\n"
    "out = ((n - 1) ** 2).mean() + ((n - 2) ** 2).mean()\n",
    "a name that stood for something else": "n = torch.zeros(6)\n" + GRADIENT
    + "n = g.norm(2, dim=1)\nout = ((n - 1) ** 2).mean()\n",
    "a cube": GRADIENT + "out = ((g.norm(2, dim=1) - 1) ** 3).mean()\n",
    "a cube, by a method": GRADIENT + "out = (g.norm(2, dim=1) - 1).pow(3).mean()\n",
    "a cube, by a function": GRADIENT + "out = torch.pow(g.norm(2, dim=1) - 1, 3).mean()\n",
    "a power of its own": "def pow(base, exponent):\n    return base * exponent\n" + GRADIENT
    + "out = pow(g.norm(2, dim=1) - 1, 2).mean()\n",
    "a root near zero": GRADIENT + "out = ((g.norm(2, dim=1) - 0) ** 2).mean()\n",
}  # fmt: skip


@pytest.mark.parametrize("body", SIDE_EFFECTS.values(), ids=SIDE_EFFECTS)
def test_a_gradient_with_another_use_is_left_alone_with_a_word(body):
    reasons = left_alone(body)
    assert "grad" in reasons or "beside the penalty" in reasons


@pytest.mark.parametrize(
    ("body", "vanish"),
    [
        ("n = g.norm(2, dim=1)\nout = ((n - 1) ** 2).mean()\n", "gn"),
        ("out = 10 * ((1 - g.norm(2, 1)) ** 2).mean()\n", "g"),
        ("g = g.view(len(x), -1)\nout = ((g.norm(2, dim=1) - 1) ** 2).mean()\n", "g"),
        ("g = g.reshape(h.shape[0], -1)\nout = ((g.norm(2, 1) - 1) ** 2).mean()\n", "g"),
        ("g = g.view(g.size(0), -1)\nout = ((g.norm(2, 1) - 1) ** 2).mean()\n", "g"),
        ("n = (g.pow(2).flatten(1).sum(1) + 1e-6).sqrt()\nout = (n - 1).pow(2).mean()\n", "gn"),
        ("out = 5 * g.square().sum(1).mean()\n", "g"),
        ("n = torch.norm(g, 2, 1)\nout = ((n - 0.3) ** 2).mean()\n", "gn"),
    ],
)
def test_a_penalty_and_nothing_else_is_one_call(body, vanish):
    proposal = same_numbers(GRADIENT + body, may_vanish=tuple(vanish))
    assert "penalty_from_logits(" in proposal.after


def test_a_penalty_beside_a_mean_square_is_not_taken_for_one():
    body = GRADIENT + (
        "p = ((g.norm(2, dim=1) - 1) ** 2).mean()\n"
        "loss = (D(x) ** 2).mean() + p\nloss.backward(retain_graph=True)\nout = loss\n"
    )
    proposal = same_numbers(body, may_vanish=("g",))
    assert "p = gf.penalty_from_logits(" in proposal.after
    assert not proposal.left_alone


@pytest.mark.parametrize(
    "gradient",
    [
        "autograd.grad(D(h).sum(), h)[0]",
        "autograd.grad(D(h).sum(), h, create_graph=False)[0]",
        "Own.grad(D(h).sum(), h, create_graph=True)[0]",
    ],
)
def test_a_gradient_of_another_kind_is_none_of_a_penalty(gradient):
    own = "class Own:\n    grad = staticmethod(lambda y, x, create_graph: [x * y])\n"
    penalty = f"g = {gradient}\nout = ((g.norm(2, dim=1) - 1) ** 2).mean()\n"
    assert left_alone(own + POINTS + penalty) == ""


def test_a_penalty_within_the_sum_leaves_the_terms_beside_it_readable():
    body = GRADIENT + (
        "n = g.norm(2, dim=1)\n"
        "out = F.relu(1 - a).mean() + F.relu(1 + a).mean() + ((n - 1) ** 2).mean()\n"
    )
    after = same_numbers(body, may_vanish=("g", "n")).after
    assert "penalty_from_logits(" in after
    assert "discriminator_loss(a, a, " in after


@pytest.mark.parametrize(
    "body",
    [
        "w = (nll_g.norm() / (g_g.norm() + 1e-4)).clamp(0, 1e4).detach()\n",
        "w = torch.norm(nll_g) / (torch.norm(g_g) + 1e-4)\n",
    ],
)
def test_an_adaptive_weight_is_told_of_the_one_backward(body):
    reasons = left_alone(
        "last = D[2].weight\nnll, g = D(x).mean(), D(-x).sum()\n"
        "nll_g = autograd.grad(nll, last, retain_graph=True)[0]\n"
        "g_g = autograd.grad(g, last, retain_graph=True)[0]\n" + body + "out = w\n"
    )
    assert "gf.balanced_backward" in reasons
