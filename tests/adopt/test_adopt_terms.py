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


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("torch.clamp(1 - D(x), min=0).mean()", "torch.clamp(1 + D(G(z)), min=0).mean()"),
        ("torch.clamp(1 - D(x), min=0).mean()", "raised.mean()"),
        ("torch.clamp(1 - D(x), 0).mean()", "(1.0 + D(G(z))).clamp(0).mean()"),
        ("(1 - D(x)).clamp_min(0).mean()", "torch.clamp_min(D(G(z)) + 1, 0).mean()"),
        (
            "torch.maximum(1 - D(x), torch.zeros(6, 1)).mean()",
            "torch.max(torch.zeros(6, 1), 1 + D(G(z))).mean()",
        ),
        (
            "-torch.min(D(x) - 1, torch.zeros(6, 1)).mean()",
            "-torch.minimum(torch.zeros(6, 1), -D(G(z)) - 1).mean()",
        ),
        ("-torch.clamp(-1 + D(x), max=0).mean()", "-(-1 - D(G(z))).clamp(max=0).mean()"),
    ],
)
def test_a_hinge_with_another_slope_at_its_margin_is_spoken_of(real, fake):
    sign = "" if fake.startswith("-") else "+ "
    above = "raised = torch.clamp(1 + D(G(z)), min=0)\n" if "raised.mean" in fake else ""
    proposal = same_numbers(f"{above}loss = {real} {sign}{fake}\nout = loss\n")
    assert proposal.before == proposal.after
    (remark,) = proposal.left_alone
    assert "a hinge by torch.clamp has the slope 1 at the margin itself" in remark.text


@pytest.mark.parametrize(
    "loss",
    [
        "torch.clamp(1 - D(x), min=0).mean()",
        "torch.clamp(1 - D(x), min=0).mean() - torch.clamp(1 + D(G(z)), min=0).mean()",
        "torch.clamp(1 - D(x), max=0).mean() + torch.clamp(1 + D(G(z)), max=0).mean()",
        "torch.clamp(1 - D(x), min=1).mean() + torch.clamp(1 + D(G(z)), min=1).mean()",
        "torch.clamp(2 - D(x), min=0).mean() + torch.clamp(2 + D(G(z)), min=0).mean()",
        "torch.min(D(x) - 1, torch.zeros(6, 1)).mean()"
        " + torch.min(-D(G(z)) - 1, torch.zeros(6, 1)).mean()",
    ],
)
def test_what_is_clamped_otherwise_is_no_hinge(loss):
    proposal = same_numbers(f"loss = {loss}\nout = loss\n")
    assert proposal.before == proposal.after
    assert not proposal.left_alone
