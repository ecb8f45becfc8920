"""Roles: means and squares are a critic's loss where it is seen who is who."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from adopted import left_alone, same_numbers

BACKWARD = "loss.backward(retain_graph=True)\nout = loss\n"
TRAINER = "class T:\n    def walk(self, value):\n        value.backward(retain_graph=True)\n"

GENERATED = {
    "by another name": ("sample = G(z)\n", "sample"),
    "within bounds": ("", "torch.clamp(G(z), -1, 1)"),
    "augmented": ("class Pool:\n    query = staticmethod(lambda v: v * 2)\n", "Pool.query(G(z))"),
    "without its graph": ("fake = G(z)\n", "fake.data"),
    "in part": ("", "G(z)[:3]"),
}


@pytest.mark.parametrize(("made", "sample"), GENERATED.values(), ids=GENERATED)
def test_a_sample_is_generated_if_it_is_made_of_a_generators(made, sample):
    after = same_numbers(f"{made}loss = D({sample}).mean() - D(x).mean()\n{BACKWARD}").after
    assert f'discriminator_loss(fake=D({sample}), real=D(x), loss="wasserstein")' in after


def test_a_pair_is_generated_if_one_of_it_is():
    body = "def critic(pair):\n    return D(pair[0] + pair[1])\n"
    body += "loss = critic((x, G(z))).mean() - critic([x, x]).mean()\n" + BACKWARD
    assert "discriminator_loss(fake=critic((x, G(z)))" in same_numbers(body).after


@pytest.mark.parametrize(
    "body",
    [
        "loss = N(G(z)).mean() - D(x).mean()\n",  # of two networks
        "loss = D(*[G(z)]).mean() - D(*[x]).mean()\n",
        "def critic():\n    return D(x)\nloss = critic().mean() - critic().mean()\n",
        "loss = torch.tanh(D(G(z))).mean() - torch.tanh(D(x)).mean()\n",
        "loss = torch.tanh(G(z)).mean() - torch.tanh(D(x)).mean()\n",
        "nets = iter([D, E])\ndef critic():\n    return next(nets)\n"
        "loss = critic()(G(z)).mean() - critic()(x).mean()\n",
        "gap = D(G(z)).mean() - D(x).mean()\nloss = torch.exp(gap)\n",
        "gap = D(G(z)).mean() - D(x).mean()\nloss = D(x).sum() if gap > 0 else D(x).mean()\n",
    ],
)
def test_what_is_not_the_loss_of_one_critic_stays(body):
    left_alone(body + BACKWARD)


def test_two_generated_samples_have_no_sides():
    reasons = left_alone("loss = D(G(z)).mean() - D(G(-z)).mean()\n" + BACKWARD)
    assert "which of the critic's two inputs is generated" in reasons


@pytest.mark.parametrize(
    "walked", ["out = gap.item()", "torch.exp(gap).backward()\nout = gap.item()"]
)
def test_a_sum_is_a_loss_only_if_it_is_itself_walked_back(walked):
    reasons = left_alone(f"gap = D(G(z)).mean() - D(x).mean()\n{walked}\n")
    assert "no backward() is seen" in reasons


@pytest.mark.parametrize(
    "function",
    [
        "def gap():\n    return torch.mean(D(G(z))) - torch.mean(D(x))\nout = gap()\n",
        "def critic_is_wrong():\n    return torch.mean(D(G(z))) - torch.mean(D(x)) > 0\n"
        "out = float(critic_is_wrong())\n",
    ],
)
def test_what_a_function_of_another_name_returns_is_not_seen_to_be_a_loss(function):
    assert "no backward() is seen" in left_alone(function)


@pytest.mark.parametrize(
    "walked",
    [
        TRAINER.replace("walk", "manual_backward") + "T().manual_backward(loss)\nout = loss\n",
        "def critic_step(loss=loss):\n    total = loss * 1\n    total.backward(retain_graph=True)\n"
        "loss.backward(retain_graph=True)\nout = loss\n",
    ],
)
def test_a_loss_is_walked_back_by_a_trainer_too(walked):
    body = "loss = D(G(z)).mean() - D(x).mean()\n" + walked
    assert "discriminator_loss(" in same_numbers(body).after


def test_a_step_returns_its_loss_in_a_dict():
    body = """
        def training_step():
            loss = torch.mean(D(G(z))) - torch.mean(D(x))
            return {"loss": loss, "step": 1}
        out = training_step()["loss"]
        """
    assert "discriminator_loss(" in same_numbers(body).after


SQUARES = """
def loss(real_out, fake_out):
    return torch.mean((real_out - 1) ** 2) + torch.mean(fake_out ** 2)
out = loss(D(x), D(G(z)))
"""


def test_squares_of_parameters_are_told_apart_by_their_names():
    assert "discriminator_loss(real_out, fake_out, " in same_numbers(SQUARES).after


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("real", "out"),
        ("out", "fake"),
        ("out", "real_fake"),
        ("fake", "fake_b"),
        ("real", "real_fake"),
    ],
)
def test_squares_of_which_one_name_says_nothing_stay(real, fake):
    left_alone(SQUARES.replace("real_out", real).replace("fake_out", fake))


LISTS = """
def loss(reals, fakes):
    total = 0
    for p, q in zip(reals, fakes):
        total += torch.mean((p - 1) ** 2) + torch.mean(q ** 2)
    return total
out = loss([D(x), D(-x)], [D(G(z)), D(G(-z))])
"""


def test_squares_in_a_loop_are_told_apart_by_the_names_of_the_lists():
    assert "discriminator_loss(p, q, " in same_numbers(LISTS).after


@pytest.mark.parametrize(
    "body",
    [
        LISTS.replace("        total +=", "        p, q = q, p\n        total +="),
        "def pairs(a, b):\n    return [(b[0], a[0])]\n" + LISTS.replace("zip(", "pairs("),
    ],
)
def test_squares_in_a_loop_that_exchanges_the_sides_stay(body):
    left_alone(body)
