"""A fake that nobody detached: it is detached only where the generator's gradients are unread."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from adopted import same_numbers

STEP = """
opt_G = torch.optim.SGD(G.parameters(), 0.1)
opt_D = torch.optim.SGD(D.parameters(), 0.1)
for _ in range(2):
    opt_D.zero_grad()
    fake = G(torch.randn(6, 3))
    loss_D = criterion(D(x), torch.ones(6, 1)) + criterion(D(fake), torch.zeros(6, 1))
    loss_D.backward()
    opt_D.step()
    opt_G.zero_grad()
    loss_G = criterion(D(G(z)), torch.ones(6, 1))
    loss_G.backward()
    opt_G.step()
out = D[0].weight.sum() + G.weight.sum()
"""

WITH_E = STEP.replace(
    "for _ in range(2):", "opt_E = torch.optim.SGD(E.parameters(), 0.1)\nfor _ in range(2):"
).replace("opt_D.step()", "opt_D.step()\n    opt_E.step()")

READ = {
    "an encoder learns from it": WITH_E.replace("G(torch.randn(6, 3))", "G(E(x))"),
    "an encoder's output by name": WITH_E.replace(
        "fake = G(torch.randn(6, 3))", "code = E(x)\n    fake = G(code)"
    ),
    "a leaf that learns, or noise": STEP.replace(
        "fake = G(torch.randn(6, 3))",
        "code = torch.randn(6, 3, requires_grad=True)\n    if len(x) == 0:\n"
        "        code = torch.randn(6, 3)\n    fake = G(code)",
    ),
    "a leaf that learns, by the same name as noise": STEP.replace(
        "fake = G(torch.randn(6, 3))",
        "_, _ = torch.randn(6, 3), torch.randn(6, 3, requires_grad=True)\n    fake = G(_)",
    ),
    "a leaf that learns": STEP.replace(
        "fake = G(torch.randn(6, 3))",
        "code = torch.randn(6, 3, requires_grad=True)\n    fake = G(code)",
    ),
    "a leaf that learns, handed over": "def step(code):\n"
    + "".join(f"    {line}\n" for line in STEP.replace("torch.randn(6, 3)", "code").splitlines())
    + "    return out\nleaf = torch.randn(6, 3, requires_grad=True)\nout = step(leaf)\n"
    "learnt = leaf.grad_fn is None and float(leaf._grad.sum())\n",
    "an encoder, wrapped": WITH_E.replace(
        "G(torch.randn(6, 3))", "G(autograd.Variable(E(x)).view(6, 3))"
    ),
    "a leaf that learns, by an option": STEP.replace(
        "torch.randn(6, 3)", "torch.randn(6, 3, **{'requires_grad': True})"
    ),
    "a loss of another name, too": STEP.replace("for _ in", "loss_D = None\nfor _ in"),
    "no step of the generator": STEP.replace("    opt_G.step()\n", ""),
    "its gradient is read": STEP.replace(
        "    loss_D =", "    fake.retain_grad()\n    loss_D ="
    ).replace("opt_D.step()", "opt_D.step()\n    seen = fake.grad.norm()"),
    "a hook": STEP.replace("    loss_D =", "    fake.register_hook(lambda g: g)\n    loss_D ="),
    "parameters' gradients are read": STEP.replace(
        "opt_D.step()", "opt_D.step()\n    seen = sum(p.grad.abs().sum() for p in G.parameters())"
    ),
    "parameters' gradients are read by name": STEP.replace(
        "opt_D.step()", "opt_D.step()\n    seen = sum(getattr(p, 'grad').sum() for p in [G.weight])"
    ),
    "another program watches": "class log:\n    watch = print\n" + STEP.replace(
        "opt_D.step()", "opt_D.step()\n    log.watch('G')"
    ),
    "weights in common": "shared = nn.Linear(4, 4)\n"
    "G, D = nn.Sequential(G, shared), nn.Sequential(shared, D)\n"
    + STEP.replace("D[0].weight", "shared.weight").replace("G.weight", "G[0].weight"),
    "weights of one for the other": "G = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 8))\n"
    "G.append(nn.Linear(8, 4))\nD[0].other = G[1]\n" + STEP.replace("G.weight", "G[0].weight"),
    "the norm of the gradients is taken": STEP.replace(
        "opt_D.step()", "opt_D.step()\n    seen = nn.utils.clip_grad_norm_(G.parameters(), 1.0)"
    ),
    "nobody zeroes it": STEP.replace("    opt_G.zero_grad()\n", ""),
    "zeroed now and then": STEP.replace(
        "    opt_G.zero_grad()\n", "    if _ % 2 == 0:\n        opt_G.zero_grad()\n"
    ),
    "zeroed before": STEP.replace("    opt_G.zero_grad()\n", "").replace(
        "    opt_D.zero_grad()", "    opt_D.zero_grad()\n    opt_G.zero_grad()"
    ),
    "an optimizer of both": WITH_E.replace(
        "SGD(E.parameters(), 0.1)", "SGD([*E.parameters(), *G.parameters()], 0.1)"
    ),
    "an optimizer that nobody sees": STEP.replace(
        "for _ in", "opts = [torch.optim.SGD(list(G.parameters()), 0.1)]\nfor _ in"
    ).replace("opt_D.step()", "opt_D.step()\n    opts[0].step()"),
    "walked back under another name": STEP.replace(
        "loss_D.backward()", "kept = loss_D\n    kept.backward()"
    ),
}  # fmt: skip


@pytest.mark.parametrize("body", READ.values(), ids=READ)
def test_a_fake_whose_gradient_may_be_read_is_not_detached(body):
    assert body != STEP
    proposal = same_numbers(body)
    assert ".detach()" not in proposal.after
    assert any("is not detached" in remark.text for remark in proposal.left_alone)


@pytest.mark.parametrize(
    "body",
    [
        STEP,
        STEP.replace(
            "fake = G(torch.randn(6, 3))", "noise = torch.randn(6, 3)\n    fake = G(2 * noise)"
        ),
        STEP.replace("opt_G.zero_grad()", "G.zero_grad()"),
        STEP.replace("+ criterion(D(fake), ", "+ criterion(logits, ").replace(
            "    loss_D =", "    logits = D(fake)\n    loss_D ="
        ),
    ],
)
def test_a_fake_whose_gradient_is_zeroed_unread_is_detached(body):
    assert "D(fake.detach())" in same_numbers(body).after


def test_logits_that_the_generator_learns_from_keep_their_graph():
    body = STEP.replace("D(fake), ", "logits, ").replace("D(G(z)), ", "logits, ")
    body = body.replace("    loss_D =", "    logits = D(fake)\n    loss_D =")
    body = body.replace("loss_D.backward()", "loss_D.backward(retain_graph=True)")
    body = body.replace("    opt_D.step()\n", "")
    assert ".detach()" not in same_numbers(body).after
