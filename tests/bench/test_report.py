"""The report: one page that needs nothing beside itself, opened in a browser where there is one."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import command, figures, report, results, roofline
from ganloss_fast.bench.workload import DROP_IN, EAGER, HELPERS, OURS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FIGURES = 4  # a curve, bars of two sections, the losses of a training
CHECK = """<script>
const images = [...document.images];
const width = i => i.complete && i.naturalWidth && i.getBoundingClientRect().width;
const seen = images.filter(i => width(i) > 99);
const wide = document.documentElement.scrollWidth > window.innerWidth;
document.title = `checked: ${seen.length} of ${images.length}, ${window.innerWidth}, wide ${wide}`;
</script>"""


def measured(workload: str, contender: str, time: float, **more) -> results.Row:
    empty = results.Row(
        workload, "section <1>", contender, "native", "f", "", "float32", "measured"
    )
    ratio = 100 / time
    return replace(
        empty,
        p20_us=0.9 * time,
        p50_us=time,
        p80_us=1.2 * time,
        bytes=48_000_000,
        GB_per_s=4.0,
        operators=20,
        ratio=ratio,
        ratio_low=0.9 * ratio,
        ratio_high=1.1 * ratio,
        cpu="A processor",
        **more,
    )


def example() -> list[results.Row]:
    rows = [measured("one & two", name, time) for name, time in ((OURS, 25.0), (EAGER, 100.0))]
    rows += [
        measured("a step", name, time)
        for name, time in ((EAGER, 100.0), (DROP_IN, 80.0), (HELPERS, 50.0))
    ]
    for at in (1, 8, 512):
        point = {"curve": "length", "curve_axis": "outputs", "curve_at": at, "copy_GB_per_s": 20.0}
        rows += [measured(f"list {at}", name, at * 10.0, **point) for name in (OURS, EAGER)]
    rows += [trained(name, time) for name, time in ((EAGER, 100.0), (DROP_IN, 80.0))]
    rows.append(replace(trained(HELPERS, 50.0), status="failed: <its losses are not finite>"))
    late = replace(rows[0], contender="ganloss_fast, reference", status="not measured: no <time>")
    return [
        *rows,
        late,
        replace(rows[0], contender="torch.compile", status="failed: <out of memory>"),
    ]


def trained(form: str, time: float) -> results.Row:
    return replace(
        measured("digits: a training", form, time, samples_per_s=1e6 * 64 / time, unit="images"),
        section="training on real data",
        bytes=None,
        seconds_per_1000=time / 64e3,
        steps=40,
        loss_share=0.2,
        discarded_share=0.5,
        losses=[[0, 1.0, 2.0], [40, 0.5, 3.0]],
        drift=0.003,
        drift_of_rounding=0.002,
    )


@pytest.fixture
def folder(tmp_path):
    files = results.ResultFiles(tmp_path / "rows")
    files.write(example())
    files.close()
    assert command.main(["report", str(tmp_path / "rows"), "--out", str(tmp_path / "page")]) == 0
    return tmp_path / "page"


def test_the_page_holds_tables_figures_failures_and_the_environment(folder):
    text = (folder / report.PAGE).read_text()
    figures = re.findall(r'<img alt="[^"]+" src="data:image/png;base64,', text)
    assert len(figures) == len(list(folder.glob("*.png"))) == FIGURES
    assert "4.00x (3.60-4.40)" in text
    assert "<td>1.25x (1.12-1.38)</td><td>2.00x (1.80-2.20)</td>" in re.sub(r"\n", "", text)
    assert "failed: &lt;out of memory&gt;" in text
    assert "not measured: no &lt;time&gt;" in text
    assert "failed: &lt;its losses are not finite&gt;" in text
    assert "loss and penalty are 20.0% of the time (if they took none: 1.25x)" in text
    assert "50.0% is thrown away or done twice (2.00x)" in text
    assert "<td>0.3% (0.2%)</td>" in text
    assert "one &amp; two" in text
    assert "A processor" in text
    assert "Modelled, not measured" in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)  # nothing from elsewhere


def test_the_model_is_the_greater_of_launches_and_bytes():
    gpu = roofline.Gpu("test", 1000)
    assert roofline.floor_us(gpu, moved=48e6, launches=2) == 48
    assert roofline.floor_us(gpu, moved=100, launches=20) == 20 * roofline.LAUNCH_MICROSECONDS
    (found,) = roofline.model(example()[:2], [gpu])
    assert (found.ours_us, found.written_us, found.bound) == (72, 144, "memory")


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path, folder, capsys):
    (tmp_path / "file").write_text("")
    rows = str(tmp_path / "rows")
    assert command.main(["report", rows, "--out", str(tmp_path / "file" / "deep")]) == 2
    assert "--out: cannot write to" in capsys.readouterr().err


def test_bars_stand_beside_their_label_also_where_a_contender_is_missing():
    stands = figures.places([["a", "b", "c"], ["b"], ["a", "c"]])
    assert [len(at) for at in stands] == [3, 1, 2]
    flat = [place for at in stands for place in at]
    assert flat == sorted(flat)
    for at, after in itertools.pairwise(stands):
        assert all(b - a == 1 for a, b in itertools.pairwise(at))  # a group has no holes
        assert after[0] - at[-1] > 1.5  # and is apart from the next


def of_curve(contender: str, at: int, **more) -> results.Row:
    row = measured(f"size {at}", contender, 10.0 * at, curve="size", curve_axis="n", curve_at=at)
    compared = None if at == 1 else 0.2  # the smallest lies in the cache
    return replace(row, **{"copy_GB_per_s": 24.0, "of_copy_bandwidth": compared, **more})


def axes_of(monkeypatch, draw, rows):
    seen = []
    drawing = figures._drawing
    monkeypatch.setattr(
        figures, "_drawing", lambda *given: (seen.append(given[2]), drawing(*given))[1]
    )
    draw(rows)
    return [axes for figure in seen for axes in figure.axes]


def test_a_curve_holds_eager_every_point_and_the_floor_of_a_copy(monkeypatch):
    rows = [of_curve(name, at) for name in (EAGER, OURS) for at in (1, 2, 4)]
    (axes,) = axes_of(monkeypatch, figures.curves, rows[:-1])
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == [EAGER, OURS, "a copy of the least bytes"]
    assert list(lines[EAGER].get_xdata()) == [1, 2, 4]
    assert list(lines[OURS].get_xdata()) == [1, 2]
    assert list(lines[OURS].get_ydata()) == pytest.approx([1e-5, 2e-5])
    floor = lines["a copy of the least bytes"]
    assert list(floor.get_xdata()) == [2, 4]
    assert list(floor.get_ydata()) == pytest.approx(2 * [2e-3])


def test_memory_is_drawn_along_the_curves_of_whole_penalties(monkeypatch):
    rows = [of_curve(OURS, at, peak_bytes=1000 * at, bytes=None) for at in (1, 2)]
    (axes,) = axes_of(monkeypatch, figures.memory, rows)
    assert list(axes.lines[0].get_ydata()) == [1000, 2000]
    assert not figures.memory([of_curve(OURS, 1, peak_bytes=1000)])


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_shows_every_figure_without_an_error(folder, tmp_path, width):
    page = tmp_path / "checked.html"
    page.write_text((folder / report.PAGE).read_text() + CHECK)
    result = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
            "--virtual-time-budget=3000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert f"checked: {FIGURES} of {FIGURES}, {width}, wide false" in result.stdout
    assert "CONSOLE" not in result.stderr
