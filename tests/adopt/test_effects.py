"""What may stand between the two sides of a loss, which are computed at once: it only computes."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from ganloss_fast.adopt.script import propose

HEAD = "import torch\nimport torch.nn.functional as F\n"


def with_between(expression: str) -> str:
    loss = f"F.relu(1 - r).mean() + {expression} + F.relu(1 + f).mean()"
    return propose(f"{HEAD}async def step(r, f):\n    loss = {loss}\n").after


@pytest.mark.parametrize(
    "expression",
    [
        "x * 2",
        "abs(x)",
        "len(x)",
        "x.detach().norm()",
        "x.to(device).view(-1).sum()",
        "torch.cat([x, y], dim=0).sum()",
        "torch.zeros_like(x).sum()",
        "F.softplus(x).sum()",
        "F.relu(x).sum()",
    ],
)
def test_the_sides_are_computed_at_once_past_what_only_computes(expression):
    assert f'gf.discriminator_loss(r, f, "hinge") + {expression}\n' in with_between(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "D(x)",
        "self.draw()",
        "print(x)",
        "log(x)",
        "torch.rand(())",
        "torch.clamp_(x, 0)",
        "torch.cuda.max(x)",
        "torch.abs(x, out=y)",
        "F.relu(x, True)",
        "F.relu(x, inplace=True)",
        "torch.exp(x, inplace=True)",
        "x.exp_()",
        "x.minimize()",
        "x.sum(D(y))",
        "D(x).sum()",
        "(y := x)",
        "(await x)",
        "[v async for v in x][0]",
    ],
)
def test_the_sides_stay_apart_where_anything_may_be_drawn_or_changed(expression):
    assert "discriminator_loss(" not in with_between(expression)


def test_the_sides_stay_apart_where_something_is_handed_in():
    loss = "F.relu(1 - r).mean() + (yield) + F.relu(1 + f).mean()"
    assert "discriminator_loss(" not in propose(f"{HEAD}def s(r, f):\n    x = {loss}\n").after
