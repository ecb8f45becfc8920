"""Names: what they stand for where they are read, and who else reads them."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from adopted import left_alone, same_numbers

SIDES = "r, f = D(x), D(-x)\na = F.relu(1 - r).mean()\nb = F.relu(1 + f).mean()\n"

NOT_TORCHS = {
    "a class of torch's name": "class F:\n    relu = staticmethod(lambda v: v * 2)\n"
    "out = F.relu(1 - D(x)).mean()\n",
    "a name of another function": "import builtins\ndef made():\n    mse = nn.MSELoss()\n"
    "    return mse\nbuiltins.mse = lambda a, b: a.sum()\nout = mse(D(x), torch.ones(6, 1))\n",
    "an option behind a star": "given = (D(x), 2.0)\nout = F.softplus(*given).mean()\n",
    "a weight behind a star": "given = (D(x), torch.zeros(6, 1))\n"
    "out = F.binary_cross_entropy_with_logits(*given, torch.ones(6, 1))\n",
    "a name that exec gives": "r, f = D(x), D(G(z))\nexec('f = N(G(z))')\n"
    "loss = f.mean() - r.mean()\nloss.backward(retain_graph=True)\nout = r.sum()\n",
    "a number of the caller's": "smooth = 0.9\ndef step(smooth):\n"
    "    return F.mse_loss(D(x), torch.full((6, 1), smooth))\nout = step(0.5)\n",
}


@pytest.mark.parametrize("body", NOT_TORCHS.values(), ids=NOT_TORCHS)
def test_a_name_that_stands_for_something_else_is_left_alone(body):
    left_alone(body)


@pytest.mark.parametrize(
    "use",
    [
        "def step():\n"
        + "".join(f"    {line}\n" for line in SIDES.splitlines())
        + "    total = a + b\n    return total, len(locals())\nout, count = step()\n"
        "out = out * count\n",
        "__all__ = ['a', 'b']\n" + SIDES + "out = a + b\n",
    ],
    ids=["locals", "__all__"],
)
def test_a_name_that_is_read_by_its_text_stays(use):
    after = same_numbers(use).after
    assert "a = gf." in after
    assert "b = gf." in after


def test_a_name_stands_for_what_it_was_assigned_last():
    proposal = same_numbers(
        """
        def step():
            scores = G(z)
            scores = D(scores)
            loss = scores.mean() - D(x).mean()
            loss.backward(retain_graph=True)
            return loss
        out = step()
        """
    )
    assert 'discriminator_loss(fake=scores, real=D(x), loss="wasserstein")' in proposal.after
