"""``profile``: what it says of users' discriminators and steps, and one line for what it cannot."""

from __future__ import annotations

import sys
import threading
import types

import pytest
import torch
from torch import nn

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from profiled_players import WIDTH, Players, critic_of, plainly
from rich.console import Console

from ganloss_fast.bench import command
from ganloss_fast.bench.profile import findings, shown
from ganloss_fast.bench.profile.ledger import REST, Ledger, Operator, Place, cost_of


@pytest.fixture
def users(monkeypatch):
    module = types.ModuleType("users_code")
    monkeypatch.setitem(sys.modules, "users_code", module)
    return module


def profile(*arguments: str) -> int:
    return command.main(["profile", *arguments])


def profile_step() -> int:
    return profile("--step", "users_code:make")


def made_of(p, step=plainly):
    """What a function that is named by --step returns."""
    return lambda: {"step": lambda: step(p), "discriminator": p.d, "generator": p.g}


# ---- around a discriminator --------------------------------------------------------------------


def test_a_discriminator_is_profiled_with_loss_and_penalty(users, capsys):
    users.make = lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 4, 3),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 1, 3),
    )
    assert profile("--factory", "users_code:make", "--input", "2x3x8x8", "--penalty", "r1") == 0
    said = capsys.readouterr().out
    assert "gf.generator_backward(loss, generator)" in said
    assert "gf.cut_second_order(gradient)" in said


class Blurred(nn.Module):
    """Its filter is a constant, as in StyleGAN."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 3)
        self.register_buffer("filter", torch.ones(4, 1, 2, 2) / 4)

    def forward(self, x):
        x = nn.functional.leaky_relu(self.first(x), 0.2)
        return self.last(nn.functional.conv2d(x, self.filter, groups=4))


def half_frozen():
    critic = Blurred()
    critic.first.requires_grad_(False)
    return critic


@pytest.mark.parametrize("make", [Blurred, half_frozen])
def test_a_profile_of_constant_filters_ends(users, capsys, make):
    users.make = make
    assert profile("--factory", "users_code:make", "--input", "2x3x8x8", "--penalty", "r1") == 0


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.logits, self.features = nn.Linear(4, 1), nn.Linear(4, 6)

    def forward(self, x):
        return self.logits(x), self.features(x)


def test_a_pair_is_logits_and_features(users, capsys):
    users.make = Pair
    assert profile("--factory", "users_code:make", "--input", "2x4", "--device", "cpu") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the 1 outputs other than [2, 1] are taken for feature maps" in said


# ---- whole steps -------------------------------------------------------------------------------


def test_a_whole_step_is_profiled(users, capsys):
    def not_detached(p):
        p.learn_d(p.d(p.g(p.noise)).mean() - p.d(p.real).mean())
        p.learn_g(-p.d(p.g(p.noise)).mean())

    users.make = made_of(Players(), not_detached)
    assert profile_step() == 0
    assert "discriminator(fake.detach())" in capsys.readouterr().out


def test_a_discriminator_that_is_not_called_is_no_clean_bill(users, capsys):
    other = critic_of()
    users.make = made_of(Players(), lambda p: p.learn_g(-other(p.g(p.noise)).mean()))
    assert profile_step() == 0
    said = capsys.readouterr().out
    assert "The discriminator was not called" in said
    assert "Nothing is thrown away" not in said


def test_a_step_that_cannot_be_seen_is_no_clean_bill(users, capsys):
    def in_a_thread(p):
        thread = threading.Thread(target=plainly, args=(p,))
        thread.start()
        thread.join()

    for step in (in_a_thread, lambda p: None):
        users.make = made_of(Players(), step)
        assert profile_step() == 0
        said = capsys.readouterr().out
        assert "A step in a thread of its own cannot be seen" in said
        assert "Nothing is thrown away" not in said
        assert " of the time" not in said.replace("of time", "")


def test_the_table_begins_with_what_ran_first(users, capsys):
    users.make = made_of(Players(), lambda p: p.learn_d(p.d(p.real).mean()))
    assert profile_step() == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert rows[0][2].strip() == "discriminator forward"


def test_what_is_shown_are_the_shares_of_the_step_as_it_is():
    """One operator of two is thrown away: a quarter of the FLOPs, half of the time."""
    operators = [Operator(Place(REST), 0, None, flops, 1.0) for flops in (25_000, 75_000)]
    cost = cost_of(operators[:1])
    found = [findings.Finding("something", cost, "leave it out")]
    profile = findings.Profile("a step", Ledger(operators), found, cost, [])
    console = Console(width=200)
    with console.capture() as said:
        shown.show(profile, 1500, 4.0, console)
    assert "Without the watching the step takes 4.00 s." in said.get()
    assert "Peak memory above what was there before: 1.5 kB." in said.get()
    assert "together 25.0% of the FLOPs and 50.0% of the time; without it" in said.get()
    assert "about 2.00 times as fast" in said.get()
    one = "something: 25.0% of the FLOPs, 50.0% of the time (about 2.00 s of the step)"
    assert one in said.get()


def test_a_profile_says_what_it_saves_of_the_steps_time(users, capfd):
    users.make = made_of(Players())
    assert profile_step() == 0
    said = capfd.readouterr()
    text = " ".join(said.out.split())
    assert "without it the step is about" in text
    assert "Without the watching the step takes" in text
    assert said.err == ""  # nor a word of the memory profile


def test_names_are_printed_as_they_are_brackets_and_all(users, capsys):
    network = type("[red]Net[/]", (nn.Linear,), {})(WIDTH, WIDTH).requires_grad_(False)

    def step(p):
        network(p.real)
        plainly(p)

    setattr(users, "make[bold]", made_of(Players(), step))
    assert profile("--step", "users_code:make[bold]") == 0
    said = capsys.readouterr().out
    assert "One step of users_code:make[bold]" in said
    assert "[red]Net[/] forward" in said
    assert "forwards of the [red]Net[/] in the discriminator's step" in said


# ---- what cannot be profiled -------------------------------------------------------------------


SIDES = ("discriminator", "generator")


def by_transform(p):
    torch.func.grad(lambda x: p.d(x).sum())(p.real)


def broken():
    raise FileNotFoundError("weights.pt")


class OfDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x):
        return {"adv_output": self.layer(x)}


class Unclear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x):
        return self.layer(x), self.layer(x)


class WithLabels(OfDict):
    def forward(self, x, labels):
        return self.layer(x) + labels


class Detached(OfDict):
    def forward(self, x):
        return self.layer(x).detach()


class Exiting(OfDict):
    def forward(self, x):
        sys.exit(3)


class Nothing(OfDict):
    def forward(self, x):
        return []


FACTORY = ("--factory", "users_code:make")
STEP = ("--step", "users_code:make")


@pytest.mark.parametrize(
    ("made", "arguments", "said"),
    [
        (broken, FACTORY, "raised FileNotFoundError: weights.pt"),
        (None, ["--factory", "users_code:other"], "users_code has no function other"),
        (None, ["--factory", "nowhere:make"], "importing nowhere failed: ModuleNotFoundError"),
        (None, ["--factory", "users_code"], "expected module:function"),
        (lambda: 3, FACTORY, "must be a torch.nn.Module"),
        (nn.Identity, [*FACTORY, "--input", "2xa"], "expected a shape"),
        (
            lambda: torch.compile(nn.Linear(3, 1)),
            FACTORY,
            "is compiled, and its parts could not be told apart",
        ),
        (
            lambda: nn.Linear(5, 1),
            [*FACTORY, "--input", "2x3"],
            "on an input of [2, 3], raised RuntimeError",
        ),
        (nn.Flatten, [*FACTORY, "--input", "2x4"], "has no parameter that learns"),
        (OfDict, [*FACTORY, "--input", "2x4"], "it returned a dict"),
        (Unclear, [*FACTORY, "--input", "2x4"], "it returned a tuple of [2, 6], [2, 6]"),
        (
            Pair,
            [*FACTORY, "--input", "2x3x99999999x99999999"],
            "--input: 2x3x99999999x99999999 raised RuntimeError",
        ),
        (WithLabels, [*FACTORY, "--input", "2x4"], "its forward is (x, labels)"),
        (Detached, [*FACTORY, "--input", "2x4"], "logits that its parameters learn from"),
        (Exiting, [*FACTORY, "--input", "2x4"], "raised SystemExit: 3"),
        (Nothing, [*FACTORY, "--input", "2x4"], "it returned an empty list"),
        (lambda: sys.exit("no GPU"), FACTORY, "raised SystemExit: no GPU"),
        (lambda needed: 3, FACTORY, "missing 1 required positional argument: 'needed'"),
        (lambda: (Pair(), Pair()), FACTORY, "must return one discriminator, got a tuple of Pair"),
        (lambda: None, FACTORY, "a list of them, got a NoneType"),
        (lambda: nn.Linear(4, 1, device="meta"), FACTORY, "on the meta device"),
        (lambda: 3, STEP, "must return a dict with step, discriminator"),
        (made_of(Players(), lambda p: next(iter(()))), STEP, "raised StopIteration"),
        (made_of(Players(), lambda p: sys.exit(3)), STEP, "raised SystemExit: 3"),
        (made_of(Players(), lambda p: by_transform(p)), STEP, "under a transform of torch.func"),
        (lambda: dict.fromkeys(SIDES, critic_of()) | {"step": int}, STEP, "not be the same module"),
        (lambda: dict.fromkeys(SIDES, critic_of()) | {"step": 3}, STEP, "step must be a function"),
        (lambda: {"step": int, "discriminator": [], "generator": 3}, STEP, "got an empty list"),
    ],
)
def test_what_cannot_be_profiled_is_said_in_one_line(users, capsys, made, arguments, said):
    users.make = made
    assert profile(*arguments) == 2
    complaint = capsys.readouterr().err
    assert complaint.count(said) == 1
    assert complaint.count("\n") == 1
    assert "TargetError" not in complaint
