"""The report: one page that needs nothing beside itself, opened in a browser where there is one."""

from __future__ import annotations

import html
import itertools
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import command, curves, figures, places, report, results, roofline
from ganloss_fast.bench.workload import BUILT_IN, DROP_IN, EAGER, HELPERS, OURS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FIGURES = 5  # a curve, bars of two sections, the losses of a training, modelled GPUs
CHECK = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  const box = e => e.getBoundingClientRect();
  const inside = e => box(e).left >= 0 && box(e).right <= innerWidth;
  const seen = images.filter(i => i.complete && i.naturalWidth && i.width > 99 && inside(i));
  const cells = [...document.querySelectorAll("td")].filter(c => c.offsetWidth);
  const cut = cells.filter(c => !inside(c) || c.scrollWidth > c.clientWidth + 1).length;
  const wide = document.documentElement.scrollWidth > innerWidth;
  const said = `${seen.length} of ${images.length}, ${innerWidth}, wide ${wide}, cut ${cut}`;
  parent.document.title = "checked: " + said + ` of ${cells.length > 50 ? "many" : "few"}`;
});
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
    cells = re.findall(r"<td[^>]*>(.*?)</td>", text)
    assert ["1.25x (1.12-1.38)", "2.00x (1.80-2.20)"] in [
        cells[k : k + 2] for k in range(len(cells))
    ]
    assert "failed: &lt;out of memory&gt;" in text
    assert "not measured: no &lt;time&gt;" in text
    assert "failed: &lt;its losses are not finite&gt;" in text
    assert "loss and penalty are 20.0% of the time (if they took none: 1.25x)" in text
    assert "50.0% is thrown away or done twice (2.00x)" in text
    assert "0.3% (0.2%)" in cells
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
    rows[-1] = replace(rows[-1], status="failed: out of memory", p50_us=None)
    axes, *_ = axes_of(monkeypatch, figures.draw, sorted(rows, key=lambda row: -row.curve_at))
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == [EAGER, OURS, "a copy of the least bytes"]
    assert list(lines[EAGER].get_xdata()) == [1, 2, 4]
    assert list(lines[OURS].get_xdata()) == [1, 2]
    assert list(lines[OURS].get_ydata()) == pytest.approx([1e-5, 2e-5])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.9e-5, 4.8e-5))  # p20 of 1, p80 of 4
    floor = lines["a copy of the least bytes"]
    assert list(floor.get_xdata()) == [2, 4]
    assert list(floor.get_ydata()) == pytest.approx(2 * [2e-3])


def test_one_point_is_no_curve():
    assert not figures.curves([of_curve(name, 1) for name in (EAGER, OURS)])
    assert len(figures.curves([of_curve(OURS, at) for at in (1, 2)])) == 1


def test_memory_is_drawn_along_the_curves_of_whole_penalties(monkeypatch):
    rows = [of_curve(OURS, at, peak_bytes=1000 * at, bytes=None) for at in (1, 2)]
    (axes,) = axes_of(monkeypatch, figures.memory, rows)
    assert list(axes.lines[0].get_ydata()) == [1000, 2000]
    assert not figures.memory([of_curve(OURS, at, peak_bytes=1000) for at in (1, 2)])


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_every_figure_and_cell_without_an_error(folder, tmp_path, width):
    """In a frame: no window of Chromium is as narrow as a phone."""
    page = tmp_path / "checked.html"
    text = html.escape((folder / report.PAGE).read_text() + CHECK)
    style = f"width: {width}px; height: 800px; border: 0"
    page.write_text(f'<body style="margin: 0"><iframe style="{style}" srcdoc="{text}"></iframe>')
    result = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,900",
            "--virtual-time-budget=3000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    (title,) = re.findall("<title>(checked: .*?)</title>", result.stdout)
    assert title == f"checked: {FIGURES} of {FIGURES}, {width}, wide false, cut 0 of many"
    assert "CONSOLE" not in result.stderr


# ---- what the page says, and does not ------------------------------------------------------------


def text_of(rows) -> str:
    return report.page(rows, figures.draw(rows))


def test_links_lead_to_what_is_there_and_no_table_is_empty():
    for rows in (example(), example()[:2], [replace(example()[0], operators=None)], example()[-1:]):
        text = text_of(rows)
        links = set(re.findall(r'href="#(\w+)"', text))
        assert links == set(re.findall(r'<h2 id="(\w+)"', text))
        for table in re.findall("<table>.*?</table>", text, re.S):
            assert table.count("<tr") > 1
    assert "Modelled" in text_of(example()[:2])
    assert "Modelled" not in text_of([replace(example()[0], operators=None)])


def test_the_modelled_figure_says_that_it_is_modelled(monkeypatch):
    draw = lambda rows: figures.modelled(roofline.model(rows))  # noqa: E731
    (axes,) = axes_of(monkeypatch, draw, example()[:2])
    assert axes.get_title(loc="left") == "Modelled, not measured"
    roofs = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert [line.get_label() for line in roofs] == [gpu.name for gpu in roofline.GPUS]
    fastest = roofs[-1]  # where launches end and the memory begins, and at the workload's bytes
    seconds = [1e-6 * roofline.ours_us(roofline.GPUS[-1], at) for at in fastest.get_xdata()]
    assert list(fastest.get_ydata()) == pytest.approx(seconds)
    assert seconds[0] == pytest.approx(1e-6 * roofline.LAUNCHES * roofline.LAUNCH_MICROSECONDS)
    assert not figures.modelled([])


def test_a_loss_that_computes_something_else_is_never_shown_without_saying_so(monkeypatch):
    rows = [*example()[:2], measured("one & two", BUILT_IN, 10.0)]
    (axes,) = axes_of(monkeypatch, figures.bars, rows)
    _, labels = axes.get_legend_handles_labels()
    assert "F.mse_loss (computes something else)" in labels
    assert "<td>F.mse_loss (computes something else)</td>" in text_of(rows)


def test_every_form_of_a_training_is_drawn(monkeypatch):
    forms = (EAGER, DROP_IN, HELPERS, "compat alone, switched", "another")
    rows = [trained(form, 100.0) for form in forms]
    for axes in axes_of(monkeypatch, figures.trainings, rows):
        assert [line.get_label() for line in axes.lines] == list(forms)


def test_too_few_rounds_have_a_range_and_no_bars_of_error(monkeypatch):
    few = replace(example()[0], p20_us=None, p80_us=None)
    assert figures._beside(few) == (0.0, 0.0)
    assert figures._beside(example()[0]) == pytest.approx((0.4, 0.4))
    assert "4.00x (range 3.60-4.40)" in text_of([few, example()[1]])
    line = [replace(of_curve(OURS, at), p20_us=None, p80_us=None) for at in (1, 2)]
    assert axes_of(monkeypatch, figures.curves, line)


def test_a_name_may_hold_dollars():
    rows = [replace(row, workload="costs $x$ and $\\", section="$^$") for row in example()[:2]]
    assert figures.bars(rows)


def test_ticks_are_numbers_as_people_write_them(monkeypatch):
    def draw(rows):
        figures.curves(rows)
        figures.memory([replace(row, bytes=None, peak_bytes=1000) for row in rows])
        figures.modelled(roofline.model(example()[:2]))

    rows = [of_curve(OURS, at) for at in (64, 1000, 100_000, 10_000_000)]
    for axes in axes_of(monkeypatch, draw, rows):
        axes.figure.draw_without_rendering()
        for axis in (axes.xaxis, axes.yaxis):
            texts = [tick.get_text() for tick in axis.get_ticklabels(which="both")]
            assert any(texts)
            assert not any("$" in text for text in texts)


# ---- several machines ----------------------------------------------------------------------------


def elsewhere(rows, **there):
    return [replace(row, **there) for row in rows]


def test_rows_of_two_machines_share_no_group_no_curve_and_no_bar():
    here = [of_curve(OURS, at) for at in (1, 2)] + example()[:2]
    rows = [*here, *elsewhere(here, threads=8), *elsewhere(here, device="cuda", gpu="H200")]
    found = places.labelled(rows)
    assert len({row.curve for row in found if row.curve}) == 3
    assert len({row.section for row in found}) == 3
    assert len(results.by_workload(found)) == 3 * len(results.by_workload(here))
    text = text_of(rows)
    assert "12 rows of 3 workloads, on 3 machines or numbers of threads" in text
    assert "one &amp; two [A processor, 8 thread(s)]" in text
    assert "<h3>H200, 1 thread(s), cuda, A processor</h3>" in text
    assert places.labelled(here) == here


def test_the_curve_of_threads_is_one_curve_of_one_machine():
    points = [
        replace(of_curve(OURS, at), curve=curves.THREADS_CURVE, threads=at) for at in (1, 2, 4)
    ]
    assert len(places.by_place(points)) == 1
    assert len(places.by_place([*points, *example()[:2]])) == 1


def test_machines_of_one_name_are_told_apart():
    rows = [*example()[:2], *elsewhere(example()[:2], gpu="G", device="cuda")]
    rows += elsewhere(rows[2:], cpu="another")
    assert len({row.workload for row in places.labelled(rows)}) == 3


def test_of_files_of_one_machine_the_last_row_counts(tmp_path):
    point = of_curve(OURS, 1)
    for name, time in (("a", 10.0), ("b", 20.0)):
        files = results.ResultFiles(tmp_path / name)
        files.write([replace(point, p50_us=time)])
        files.close()
    both = results.latest(row for name in "ab" for row in results.read_rows(tmp_path / name))
    assert [row.p50_us for row in both] == [20.0]
