"""That contenders compute the same is judged by the code as written, and no contender costs another
its row, whatever it returns or says."""

from __future__ import annotations

import json
import math

import pytest
import torch

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import agreement, command, results, runner
from ganloss_fast.bench.workload import BUILT_IN, EAGER, OURS, REFERENCE, Workload

pytestmark = pytest.mark.usefixtures("no_copy")
NAN, INF = math.nan, math.inf


def tensors(*values) -> list[torch.Tensor]:
    return [torch.tensor(value, dtype=torch.float32) for value in values]


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (tensors([1.0, 2.0]), tensors([NAN, 2.0])),
        (tensors([NAN, 2.0]), tensors([1.0, 2.0])),
        (tensors([INF, 2.0]), tensors([-INF, 2.0])),
        (tensors([1.0, 2.0]), tensors([INF, 2.0])),
        (tensors([1.0], [1.0]), tensors([1.0], [NAN])),  # max() passes over a NaN that comes later
        (tensors([1.0, 1.0]), tensors([1.0])),  # would be broadcast
        (tensors([1.0, 1.0]), tensors([[1.0, 1.0]])),
        (tensors(1.0, 2.0), tensors(1.0)),
        (tensors(1.0), tensors(1.0, 2.0)),
    ],
)
def test_what_is_not_alike_is_infinitely_far(expected, found):
    assert agreement.distance(expected, found) == INF
    apart, why = agreement.disagreement(expected, found, tolerance=1e9)
    assert apart == INF
    assert why


@pytest.mark.parametrize(
    ("expected", "found", "apart"),
    [
        (tensors([3.0, 4.0]), tensors([3.0, 4.5]), 0.1),
        (tensors([3.0, NAN, 4.0, INF]), tensors([3.0, NAN, 4.5, INF]), 0.1),
        (tensors([0.0]), tensors([0.0]), 0.0),
        ([], [], 0.0),
    ],
)
def test_the_distance_is_relative_to_what_is_expected(expected, found, apart):
    assert agreement.distance(expected, found) == pytest.approx(apart)


# ---- in a run ----------------------------------------------------------------------------------


def workload(**contenders) -> Workload:
    """Ours, eager and whatever else, as functions of a tensor of ones."""

    def build(device):
        x = torch.ones(1000)
        return {name: lambda work=work: work(x) for name, work in contenders.items()}

    return Workload("w", "s", build, quick=True)


def right(x):
    return [x * 2, x * 3]


def raising(error: BaseException):
    def work(x):
        raise error

    return work


def rows_of(found: Workload, seed: int = 0) -> dict[str, results.Row]:
    plan = runner.Plan(torch.device("cpu"), rounds=6, most_seconds=0.01, seed=seed)
    (rows,) = runner.run([found], plan)
    return {row.contender: row for row in rows}


def statuses(found: Workload) -> dict[str, str]:
    return {name: row.status for name, row in rows_of(found).items()}


WRONG = {
    "NaN": lambda x: [x * 2, x * NAN],
    "another shape": lambda x: [x * 2, torch.full((1,), 3.0)],
    "fewer results": lambda x: [x * 2],
    "other values": lambda x: [x * 2, x * 3.001],
    "no tensor": lambda x: [2.0],
    "meta": lambda x: [x.to("meta"), x.to("meta")],
    "exit": raising(SystemExit(3)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("whose", [OURS, REFERENCE])
def test_the_one_that_is_wrong_fails_and_the_others_are_measured(wrong, whose):
    works = {OURS: right, EAGER: right, REFERENCE: right, whose: wrong}
    found = statuses(workload(**works))
    assert found.pop(whose).startswith("failed: ")
    assert set(found.values()) == {"measured"}


def test_what_is_returned_in_a_buffer_that_others_write_is_compared_as_it_was():
    buffer = torch.zeros(1000)

    def returns(value: float):
        return lambda x: [buffer.copy_(x * value)]

    found = statuses(workload(**{OURS: returns(3.0), EAGER: returns(2.0)}))
    assert found[OURS].startswith("failed: differs from eager")


def test_where_eager_does_not_run_ours_is_the_judge_and_the_built_in_loss_is_not_judged():
    works = {OURS: right, EAGER: raising(MemoryError()), BUILT_IN: WRONG["other values"]}
    found = statuses(workload(**works, **{REFERENCE: WRONG["NaN"]}))
    assert found[OURS] == found[BUILT_IN] == "measured"
    assert "differs from ganloss_fast in where values are NaN" in found[REFERENCE]


def test_where_eager_does_not_run_nothing_has_a_ratio():
    found = rows_of(workload(**{OURS: right, EAGER: raising(MemoryError()), REFERENCE: right}))
    assert found[OURS].measured
    assert {row.ratio for row in found.values()} == {None}
    assert {row.ratio_low for row in found.values()} == {None}


def test_of_equal_seeds_the_inputs_are_the_same():
    seen = []

    def build(device):
        seen.append(torch.randn(3))
        return {OURS: lambda: [torch.ones(())], EAGER: lambda: [torch.ones(())]}

    for seed in (1, 1, 2):
        torch.rand(seed + len(seen))
        rows_of(Workload("w", "s", build), seed)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_one_that_fails_when_its_memory_is_observed_costs_its_own_row(monkeypatch):
    observe = runner.memory.observe
    calls = []

    def once(work, device):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no profiler")
        return observe(work, device)

    monkeypatch.setattr(runner.memory, "observe", once)
    found = statuses(workload(**{OURS: right, EAGER: right}))
    assert sorted(found.values()) == ["failed: RuntimeError: no profiler", "measured"]


@pytest.mark.parametrize("text", ["expected [/x] here", "expected [batch, 3] got [a]", ":x: [red]"])
def test_brackets_of_an_error_a_name_and_a_folder_are_shown_as_they_are(tmp_path, capsys, text):
    bad = workload(**{OURS: right, EAGER: right, REFERENCE: raising(RuntimeError(text))})
    bad = Workload(f"named {text}", f"section {text}", bad.build)
    out = tmp_path / text.replace("/", "\\")
    assert command.main(["list"], [bad]) == 0
    arguments = ["--rounds", "6", "--seconds", "0.01", "--no-compile", "--out", str(out)]
    assert command.main(["run", *arguments], [bad]) == 1
    assert command.main(["compare", str(out), str(out)], [bad]) == 0
    said = capsys.readouterr().out
    assert f"failed: RuntimeError: {text}" in said
    assert said.count(f"named {text}") >= 4
    assert out.name in said.replace("\n", "")
    assert len(results.read_rows(out)) == 3


def test_a_difference_that_is_not_finite_is_null(tmp_path):
    bad = workload(**{OURS: WRONG["NaN"], EAGER: right})
    assert command.main(["run", "--seconds", "0.01", "--out", str(tmp_path)], [bad]) == 1
    for line in (tmp_path / results.JSON_LINES).read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
