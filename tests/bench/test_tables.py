"""Numbers as people read them."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import results, tables
from ganloss_fast.bench.workload import EAGER, OURS

ROW = results.Row("w", "s", OURS, "native", "f", "", "float32", "measured", p20_us=1.0, p50_us=2.0)


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (None, ""),
        (0.04, "0.0 us"),
        (999.94, "999.9 us"),
        (1500.0, "1.50 ms"),
        (999_000.0, "999.00 ms"),
        (2.5e6, "2.50 s"),
    ],
)
def test_times(microseconds, text):
    assert tables.time_text(microseconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1600, "1.6 kB"),
        (999_499, "999 kB"),
        (999_501, "1 MB"),
        (1_496_000, "1.5 MB"),
        (25_000_000, "25 MB"),
        (3_200_000_000, "3.2 GB"),
    ],
)
def test_bytes(count, text):
    assert tables.bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "less than a minute"), (60, "less than a minute"), (61, "2 min")]
)
def test_minutes(seconds, text):
    assert tables.minutes_text(seconds) == text


def test_a_ratio_stands_with_its_interval_and_that_of_eager_to_itself_nowhere():
    row = replace(ROW, ratio=2.0, ratio_low=1.5, ratio_high=2.5)
    assert tables.ratio_text(row) == "2.00x (1.50-2.50)"
    assert tables.ratio_text(replace(row, p20_us=None)) == "2.00x (range 1.50-2.50)"
    assert tables.ratio_text(replace(row, contender=EAGER)) == ""
    assert tables.ratio_text(ROW) == ""


def test_a_share_bounds_the_gain_by_amdahls_law():
    said = tables.shares_text(replace(ROW, loss_share=0.75, discarded_share=1.0))
    assert "75.0% of the time (if they took none: 4.00x)" in said
    assert "100.0% is thrown away or done twice (no bound)" in said
    assert tables.shares_text(ROW) == ""
