"""The files of rows: what is appended after a killed run, and what a reader passes by and says."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, replace

import pytest

pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import results
from ganloss_fast.bench.workload import EAGER, OURS

ROW = results.Row(
    *("w", "s", OURS, "native", "f", "", "float32", "measured"),
    p20_us=1.0, p50_us=2.0, p80_us=3.0, ratio=2.0, ratio_low=1.9, ratio_high=2.1, rounds=9,
)  # fmt: skip
EAGERS = replace(ROW, contender=EAGER, ratio=1.0, ratio_low=1.0, ratio_high=1.0)


def write(folder, *rows: results.Row) -> None:
    files = results.ResultFiles(folder)
    files.write(rows)
    files.close()


def read(folder) -> tuple[list[results.Row], list[str]]:
    said: list[str] = []
    return results.read_rows(folder, said.append), said


def edited(folder, **values):
    """One row as it is, and one with other values."""
    lines = [json.dumps(asdict(ROW)), json.dumps(asdict(EAGERS) | values)]
    (folder / results.JSON_LINES).write_text("\n".join(lines) + "\n")
    return folder


# ---- appending ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 5, 60, -1])  # characters of the last line; -1 lacks its end
def test_a_run_after_a_killed_one_begins_a_line_of_its_own(tmp_path, kept):
    write(tmp_path, ROW, replace(ROW, workload="killed, in quotes"))
    for name in (results.JSON_LINES, results.CSV):
        path = tmp_path / name
        *whole, last = path.read_text().splitlines()
        path.write_text("\n".join([*whole, last[: len(last) if kept < 0 else kept]]))
    write(tmp_path, EAGERS)
    found, said = read(tmp_path)
    names = [row.contender for row in found]
    if kept < 0:
        assert names == [OURS, OURS, EAGER]
        assert not said
    else:
        assert names == [OURS, EAGER]
        assert len(said) == 1
        assert "line 2: left out: it is no row, or only a part of one" in said[0]
    with (tmp_path / results.CSV).open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert last["contender"] == EAGER
    assert last["p50_us"] == "2.0"


def test_a_first_row_that_was_cut_off_does_not_spoil_the_folder(tmp_path):
    (tmp_path / results.JSON_LINES).write_text('{"wor')
    write(tmp_path, ROW)
    found, said = read(tmp_path)
    assert [row.contender for row in found] == [OURS]
    assert len(said) == 1


@pytest.mark.parametrize("text", ['{"format": 99}\n', "some text\n", "[1]\n"])
def test_rows_of_another_format_are_not_appended_to(tmp_path, text):
    write(tmp_path, ROW)
    (tmp_path / results.JSON_LINES).write_text(text)
    before = (tmp_path / results.CSV).read_text()
    with pytest.raises(results.ResultError, match=r"another version|something else"):
        results.ResultFiles(tmp_path)
    assert (tmp_path / results.CSV).read_text() == before
    assert (tmp_path / results.JSON_LINES).read_text() == text


@pytest.mark.parametrize("change", [lambda row: row.pop("seed"), lambda row: row.update(more=1)])
def test_rows_of_other_fields_are_neither_read_nor_appended_to(tmp_path, change):
    values = asdict(ROW)
    change(values)
    text = json.dumps(values) + "\n"
    (tmp_path / results.JSON_LINES).write_text(text)
    with pytest.raises(results.ResultError, match="another version"):
        read(tmp_path)
    with pytest.raises(results.ResultError, match="another version"):
        results.ResultFiles(tmp_path)
    assert (tmp_path / results.JSON_LINES).read_text() == text


def test_what_is_not_finite_is_null_in_json(tmp_path):
    write(tmp_path, replace(ROW, difference=math.nan), replace(EAGERS, difference=math.inf))
    for line in (tmp_path / results.JSON_LINES).read_text().splitlines():
        assert json.loads(line, parse_constant=pytest.fail)["difference"] is None


# ---- reading -----------------------------------------------------------------------------------


def test_broken_lines_are_left_out_and_named_wherever_they_stand(tmp_path):
    line = json.dumps(asdict(ROW))
    text = "\n".join([line[:100], line, "", "{}", line[:50] + line, "[" * 100_000, "  ", ""])
    (tmp_path / results.JSON_LINES).write_text(text)
    found, said = read(tmp_path)
    assert found == [ROW]
    assert [each.split(": ")[0].split()[-1] for each in said] == ["1", "4", "5", "6"]


@pytest.mark.parametrize("broken", [b'{"workload": "\xc3', b"\xff\xfe", b"\0\0\0"])
def test_a_line_that_is_no_text_is_left_out_like_any_other(tmp_path, broken):
    line = json.dumps(asdict(replace(ROW, workload="w\u2028")), ensure_ascii=False).encode()
    (tmp_path / results.JSON_LINES).write_bytes(broken + b"\n" + line + b"\n")
    found, said = read(tmp_path)
    assert [row.workload for row in found] == ["w\u2028"]
    assert len(said) == 1


def test_rows_are_on_disk_as_soon_as_they_are_written(tmp_path):
    """A run that is killed after that has them."""
    files = results.ResultFiles(tmp_path)
    files.write([ROW])
    assert read(tmp_path)[0] == [ROW]
    assert len((tmp_path / results.CSV).read_text().splitlines()) == 2
    files.close()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ratio_low": None}, "ratio_low missing beside ratio, ratio_high"),
        ({"ratio": math.nan}, "ratio missing beside ratio_low, ratio_high"),
        ({"p50_us": "abc"}, "p50_us is 'abc'"),
        ({"p50_us": None}, "it is measured, and has no p50_us"),
        ({"p20_us": -1.0}, "p20_us is -1.0, no number above 0"),
        ({"ratio": 0}, "ratio is 0, no number above 0"),
        ({"rounds": 2.5}, "rounds is 2.5"),
        ({"rounds": True}, "rounds is True"),
        ({"p80_us": 10**400}, "p80_us is 1000"),
        ({"status": None}, "status is None"),
        ({"section": ""}, "it has no section"),
        ({"losses": [[1, "x", 2]]}, "losses is"),
        ({**dict.fromkeys(results.TOGETHER[3], 1.0), "losses": [[1, 2]]}, "losses are no points"),
        ({"curve": "length", "curve_at": 3}, "curve_axis missing beside curve"),
        ({"samples_per_s": 3.0}, "seconds_per_1000, losses, drift, drift_of_rounding missing"),
    ],
)
def test_a_row_of_wrong_values_is_left_out_and_said_in_one_line(tmp_path, values, said):
    found, lines = read(edited(tmp_path, **values))
    assert found == [ROW]
    assert len(lines) == 1
    assert f"line 2: left out: {said}" in lines[0]
    assert len(lines[0]) < 300


def test_nan_is_read_as_what_is_not_there(tmp_path):
    found, said = read(edited(tmp_path, difference=math.nan))
    assert found[1].difference is None
    assert not said


def test_rows_of_another_machine_do_not_take_the_place_of_the_first(tmp_path):
    others = [replace(ROW, **{fact: "another"}) for fact in ("cpu", "gpu", "device")]
    write(tmp_path, ROW, *others, replace(ROW, threads=8), ROW)
    assert len(read(tmp_path)[0]) == 5
