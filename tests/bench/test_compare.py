"""What ``compare`` says of two runs: whose rows count, in which direction, and what is no ratio."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from rich.console import Console

from ganloss_fast.bench import command, compare, results
from ganloss_fast.bench.workload import ALL, COMPILE, DROP_IN, EAGER, HELPERS, OURS


def row(ratio: float, name: str = "w", contender: str = OURS, spread: float = 0.02):
    return results.Row(
        name, "s", contender, "native", "f", "", "float32", "measured", p50_us=1.0,
        ratio=ratio, ratio_low=ratio * (1 - spread), ratio_high=ratio * (1 + spread),
    )  # fmt: skip


def written(folder, rows):
    files = results.ResultFiles(folder)
    files.write(rows)
    files.close()
    return str(folder)


def run(*arguments: str) -> int:
    return command.main(arguments)


def complaint(capsys, *arguments: str) -> str:
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def failed(contender: str = OURS) -> results.Row:
    status = "failed: out of memory"
    return replace(without_ratio(contender), status=status, p50_us=None)


def without_ratio(contender: str = OURS) -> results.Row:
    return replace(row(1.0, contender=contender), ratio=None, ratio_low=None, ratio_high=None)


def verdicts(base, now, **options) -> dict[str, str]:
    return {each.contender: each.verdict for each in compare.compare(base, now, **options)}


@pytest.mark.parametrize(
    "contender", [OURS, f"{OURS}, reference", DROP_IN, f"{DROP_IN}, detach_real", HELPERS]
)
def test_every_form_of_ours_can_regress(contender):
    assert verdicts([row(3.0, contender=contender)], [row(2.0, contender=contender)]) == {
        contender: "regressed"
    }


def test_what_is_not_ours_is_compared_where_it_is_asked_for_and_eager_never():
    base = [row(3.0), row(3.0, contender=COMPILE), row(1.0, contender=EAGER)]
    now = [row(3.0), row(2.0, contender=COMPILE), row(1.0, contender=EAGER)]
    assert verdicts(base, now) == {OURS: "as before"}
    assert verdicts(base, now, only_ours=False) == {OURS: "as before", COMPILE: "regressed"}


@pytest.mark.parametrize(
    ("base", "now", "verdict"),
    [
        (failed(), failed(), "as before"),
        (row(2.0), failed(), "failed"),
        (failed(), row(2.0), "new"),
        (replace(failed(), status="not measured: no time"), failed(), "as before"),
        (row(2.0), replace(failed(), status="not measured: no time"), "missing"),
        (row(2.0), without_ratio(), "no ratio"),
        (without_ratio(), row(2.0), "no ratio"),
    ],
)
def test_what_cannot_be_compared_has_a_verdict_of_its_own(base, now, verdict):
    (change,) = compare.compare([base], [now])
    assert change.verdict == verdict
    assert change.factor is None


def test_the_factor_is_that_of_now_over_the_base():
    changes = compare.compare([row(4.0)], [row(2.0)])
    assert changes[0].factor == 0.5
    console = Console(width=120)
    with console.capture() as said:
        console.print(compare.table(changes))
    (line,) = (line for line in said.get().splitlines() if "regressed" in line)
    cells = [cell.strip() for cell in line.split("│")]
    assert cells[3:7] == ["4.00x (range 3.92-4.08)", "2.00x (range 1.96-2.04)", "0.50", "regressed"]


# ---- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "spread", "status"),
    [
        (3.0, 3.0, 0.02, 0),
        (3.0, 2.0, 0.02, 1),  # 1.5 times slower
        (3.0, 2.8, 0.01, 0),  # beyond the intervals, within the tolerance
        (3.0, 2.5, 0.20, 0),  # beyond the tolerance, within the intervals
        (3.0, 4.5, 0.02, 0),
    ],
)
def test_a_regression_is_what_noise_does_not_explain(tmp_path, old, new, spread, status):
    base = written(tmp_path / "base", [row(old, spread=spread)])
    now = written(tmp_path / "now", [row(new, spread=spread)])
    assert run("compare", base, now) == status


def test_a_ratio_that_is_no_longer_there_is_a_regression_and_one_that_never_was_is_none(tmp_path):
    base = written(tmp_path / "base", [row(2.0)])
    gone = written(tmp_path / "gone", [without_ratio()])
    assert run("compare", base, gone) == 1
    assert run("compare", gone, gone) == 0
    assert run("compare", gone, base) == 0


def test_a_workload_that_can_no_longer_be_built_is_a_regression(tmp_path):
    base = written(tmp_path / "base", [row(2.0)])
    nothing = results.Row("w", "s", ALL, "", "f", "", "float32", "failed: out of memory")
    assert run("compare", base, written(tmp_path / "now", [nothing])) == 1


@pytest.mark.parametrize(
    ("there", "status", "said"),
    [
        ({"device": "cuda", "gpu": "H200"}, 2, "Not the same place: device: cpu -> cuda"),
        ({"threads": 8}, 2, "Not the same place: threads: 1 -> 8"),
        ({"cpu": "another"}, 0, "Not the same place: cpu:  -> another"),
    ],
)
def test_another_place_is_said_first_and_refused_where_nothing_carries_over(
    tmp_path, capsys, there, status, said
):
    base = written(tmp_path / "base", [row(2.0)])
    now = written(tmp_path / "now", [replace(row(2.0), **there)])
    assert run("compare", base, now) == status
    assert capsys.readouterr().out.startswith(said)
    assert run("compare", base, now, "--across") == 0
    assert capsys.readouterr().out.startswith(said)


def test_a_file_of_two_places_is_not_compared(tmp_path, capsys):
    two = written(tmp_path / "two", [row(2.0), replace(row(2.0), threads=8)])
    assert "holds rows of 2 places" in complaint(capsys, "compare", two, two)


def test_what_failed_since_is_a_regression_and_what_was_not_run_is_none(tmp_path, capsys):
    base = written(tmp_path / "base", [row(2.0), row(2.0, "not run")])
    broken = results.Row("w", "s", OURS, "native", "f", "", "float32", "failed: out of memory")
    assert run("compare", base, written(tmp_path / "broken", [broken])) == 1
    assert run("compare", base, written(tmp_path / "part", [row(2.0)])) == 0
    assert run("compare", base, written(tmp_path / "else", [row(2.0, "new")])) == 2
    assert "no workload in common" in capsys.readouterr().err
