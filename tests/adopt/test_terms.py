"""Terms: which phi is applied to which logits, towards which label."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from adopted import same_numbers


@pytest.mark.parametrize(
    ("mean", "call"),
    [
        ("F.softplus(-D(x)).mean()", 'generator_loss(D(x), "bce")'),
        ("F.softplus(+D(x)).mean()", 'discriminator_side_loss(+D(x), False, "bce")'),
        ("F.relu(-D(x) + 1).mean()", 'discriminator_side_loss(D(x), True, "hinge")'),
        ("F.relu(+D(x) + 1).mean()", 'discriminator_side_loss(+D(x), False, "hinge")'),
        ("F.relu(1 - D(x)).mean()", 'discriminator_side_loss(D(x), True, "hinge")'),
        ("F.relu(1 + D(x)).mean()", 'discriminator_side_loss(D(x), False, "hinge")'),
    ],
)
def test_a_sign_tells_the_sides_apart(mean, call):
    assert f"out = gf.{call}\n" in same_numbers(f"out = {mean}\n").after


@pytest.mark.parametrize(
    ("real", "fake", "loss"),
    [
        ("D(x) - 1", "D(G(z)) + 1", "gf.LeastSquares(fake_label=-1.0)"),
        ("1 - D(x)", "1 + D(G(z))", "gf.LeastSquares(fake_label=-1.0)"),
        ("0.9 - D(x)", "D(G(z))", "gf.LeastSquares(real_label=0.9)"),
    ],
)
def test_a_square_has_the_label_that_it_is_zero_at(real, fake, loss):
    body = f"loss = (({real}) ** 2).mean() + (({fake}) ** 2).mean()\n"
    after = same_numbers(body + "loss.backward(retain_graph=True)\nout = loss\n").after
    assert f"gf.discriminator_loss(D(x), D(G(z)), {loss})" in after


@pytest.mark.parametrize(
    "loss",
    ["F.mse_loss(D(x), torch.full((6, 1), +0.9))", "F.mse_loss(D(x), torch.full((6, 1), ~0))"],
)
def test_a_number_is_not_negated_by_another_sign(loss):
    same_numbers(f"out = {loss}\n")
