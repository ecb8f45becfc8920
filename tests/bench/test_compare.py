"""What ``compare`` says of two runs: whose rows count, in which direction, and what is no ratio."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("rich", reason="the bench extras are not installed")

from rich.console import Console

from ganloss_fast.bench import compare, results
from ganloss_fast.bench.workload import COMPILE, DROP_IN, EAGER, HELPERS, OURS

ROW = results.Row("w", "s", OURS, "native", "f", "", "float32", "measured", p50_us=1.0)


def row(ratio: float, contender: str = OURS) -> results.Row:
    bounds = {"ratio": ratio, "ratio_low": 0.99 * ratio, "ratio_high": 1.01 * ratio}
    return replace(ROW, contender=contender, **bounds)


def failed(contender: str = OURS) -> results.Row:
    return replace(ROW, contender=contender, status="failed: out of memory", p50_us=None)


def verdicts(base, now, **options) -> dict[str, str]:
    return {each.contender: each.verdict for each in compare.compare(base, now, **options)}


@pytest.mark.parametrize(
    "contender", [OURS, f"{OURS}, reference", DROP_IN, f"{DROP_IN}, detach_real", HELPERS]
)
def test_every_form_of_ours_can_regress(contender):
    assert verdicts([row(3.0, contender)], [row(2.0, contender)]) == {contender: "regressed"}


def test_what_is_not_ours_is_compared_where_it_is_asked_for_and_eager_never():
    base = [row(3.0), row(3.0, COMPILE), row(1.0, EAGER)]
    now = [row(3.0), row(2.0, COMPILE), row(1.0, EAGER)]
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
        (row(2.0), ROW, "no ratio"),
        (ROW, row(2.0), "no ratio"),
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
    assert cells[3:7] == ["4.00x (range 3.96-4.04)", "2.00x (range 1.98-2.02)", "0.50", "regressed"]
