"""The demo: what it writes, that its two runs compute the same, how it fails."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("skimage", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from demo import pictures, summary, train
from demo.objectives import LOSSES, OBJECTIVES
from demo.training import Settings, Trainer, gradient_disagreement, penalty_seconds

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = ["--size", "16", "--batch", "4", "--threads", "1"]
PICTURES = ("samples.png", "progress.png", "losses.png", "throughput.png")

# Of losses of order 10 and of gradients: float32 rounding, summed in another order.
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def keep_thread_count():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_memory_run(monkeypatch):
    """Leaves out the processes that measure memory: each imports torch anew."""
    monkeypatch.setattr(train, "measure_peaks", lambda settings: [0, 0])


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_picture(path: Path, shape: tuple[int, ...]) -> None:
    Image.fromarray(torch.randint(256, shape, dtype=torch.uint8).numpy()).save(path)


def contrast(path: Path) -> float:
    with Image.open(path) as picture:
        return float(np.std(np.array(picture.convert("L"))))


def tiny_trainer(index: int, loss: str = "wasserstein-gp") -> Trainer:
    settings = Settings(loss=loss, size=16, batch=4)
    crops = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return Trainer(OBJECTIVES[index](loss), settings, crops)


def test_demo_writes_steps_summary_and_pictures(tmp_path, capsys):
    assert train.main([*TINY, "--steps", "4", "--out", str(tmp_path)]) == 0

    rows = read_rows(tmp_path / "steps.csv")
    assert {row["run"] for row in rows} == {"plain PyTorch", "ganloss_fast"}
    assert len(rows) == 2 * 4
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["outcome"] == "completed"
    assert {"cpu", "git_revision", "torch", "ganloss_fast"} <= set(written["machine"])
    assert all(0 < run["peak_megabytes"] < 10_000 for run in written["runs"])
    for name in PICTURES:
        assert contrast(tmp_path / name) > 10, f"{name} is blank"
    shown = capsys.readouterr().out
    assert "speed-up" in shown
    penalty = written["penalty"]
    assert penalty["share"] > 0
    assert "by Amdahl's law" in " ".join(shown.split())


@pytest.mark.parametrize("loss", LOSSES)
def test_both_runs_compute_the_same_losses(loss, tmp_path, no_memory_run):
    train.main([*TINY, "--loss", loss, "--steps", "3", "--out", str(tmp_path)])
    agreement = json.loads((tmp_path / "summary.json").read_text())["agreement"]
    assert agreement["first_step"] <= LOSS_TOLERANCE
    assert agreement["same_weights_loss"] <= LOSS_TOLERANCE
    assert agreement["same_weights_gradient"] <= GRADIENT_TOLERANCE


def test_comparing_objectives_does_not_disturb_the_training():
    watched, alone = tiny_trainer(1), tiny_trainer(1)
    for _ in range(3):
        gradient_disagreement(watched, watched.objective, watched.objective)
        penalty_seconds(watched, [watched.objective])
        watched.samples(torch.zeros(2, 128))
        seen, expected = watched.step(), alone.step()
        assert seen.critic_loss == expected.critic_loss
        assert seen.generator_loss == expected.generator_loss


def test_a_disagreement_is_seen():
    trainer = tiny_trainer(1)
    loss, gradient = gradient_disagreement(
        trainer, OBJECTIVES[0]("bce"), OBJECTIVES[1]("wasserstein")
    )
    assert loss > 1e-2
    assert gradient > 1e-2


def test_amdahl_share_of_the_penalty():
    run_summary = summary.RunSummary("plain", 0.0, 0.0, 100.0, 0.0, 0.0, 0.0)
    penalty = summary.summarise_penalty([[0.06, 0.03], [0.06, 0.02], [0.06, 0.03]], run_summary)
    assert penalty.share == pytest.approx(0.6)
    assert penalty.attainable == pytest.approx(1 / (0.4 + 0.3))
    assert summary.summarise_penalty([], run_summary) is None


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_keeps_what_it_has(stop, tmp_path):
    command = [sys.executable, "-m", "demo.train", *TINY, "--steps", "1000000"]
    process = subprocess.Popen([*command, "--out", str(tmp_path)], cwd=REPOSITORY)
    steps = tmp_path / "steps.csv"
    deadline = time.monotonic() + 120
    while not (steps.exists() and len(steps.read_text().splitlines()) > 6):
        assert process.poll() is None, "the demo ended before it trained"
        assert time.monotonic() < deadline, "the demo did not train in time"
        time.sleep(0.1)
    process.send_signal(stop)

    assert process.wait(timeout=120) == 130
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["outcome"] == "interrupted"
    assert 0 < written["steps"] <= len(read_rows(steps)) // 2
    assert all((tmp_path / name).exists() for name in PICTURES)


def test_demo_stops_in_time(tmp_path, no_memory_run):
    arguments = [*TINY, "--steps", "1000000", "--minutes", "0.001", "--out", str(tmp_path)]
    assert train.main(arguments) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["outcome"] == "out of time"


def test_demo_trains_on_a_folder_of_pictures(tmp_path, no_memory_run):
    for k, shape in enumerate([(40, 30, 3), (20, 50), (24, 24, 4)]):
        write_picture(tmp_path / f"{k}.png", shape)
    out = tmp_path / "out"
    arguments = [*TINY, "--steps", "1", "--data", str(tmp_path), "--out", str(out)]
    assert train.main(arguments) == 0


def test_demo_writes_tensorboard_scalars(tmp_path, no_memory_run):
    pytest.importorskip("tensorboard")
    assert train.main([*TINY, "--steps", "2", "--tensorboard", "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("tensorboard/*/events.out.*"))) == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--loss", "wgan"], "invalid choice: 'wgan'"),
        (["--steps", "0"], "above 0"),
        (["--batch", "1"], "at least 2"),
        (["--size", "33"], "invalid choice: 33"),
        (["--minutes", "0"], "above 0"),
        (["--out", __file__], "is a file"),
    ],
)
def test_bad_arguments_are_explained(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


def _no_folder(folder: Path) -> Path:
    return folder / "missing"


def _empty_folder(folder: Path) -> Path:
    return folder


def _small_picture(folder: Path) -> Path:
    write_picture(folder / "small.png", (8, 8, 3))
    return folder


def _broken_picture(folder: Path) -> Path:
    (folder / "broken.png").write_bytes(b"not a picture")
    return folder


@pytest.mark.parametrize(
    ("prepare", "complaint"),
    [
        (_no_folder, "is not a folder"),
        (_empty_folder, "no pictures"),
        (_small_picture, "8x8 pixels"),
        (_broken_picture, "cannot be read"),
    ],
)
def test_unusable_data_is_explained(prepare, complaint, tmp_path, capsys):
    data = prepare(tmp_path)
    assert train.main([*TINY, "--data", str(data), "--out", str(tmp_path / "out")]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("count", [8, 24, 48])
def test_pixels_are_square_whatever_matplotlib_is_set_to(count, tmp_path, monkeypatch):
    shown = []
    savefig = Figure.savefig

    def keep(figure, *arguments, **options):
        savefig(figure, *arguments, **options)
        shown.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    images = torch.zeros(count, 3, 16, 16)
    with matplotlib.rc_context({"image.aspect": "auto"}):
        pictures.draw_samples(tmp_path / "samples.png", images, {"a": images, "b": images}, 1)
        pictures.draw_progress(tmp_path / "progress.png", [(0, images), (9, images)])
    for figure in shown:
        for axis in figure.axes:
            height, width = axis.images[0].get_array().shape[:2]
            box = axis.get_window_extent()
            assert box.width / box.height == pytest.approx(width / height, rel=0.01)
