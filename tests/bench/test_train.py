"""Trainings side by side: that forms learn alike, that one that does not is told, what rows say."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest
import torch

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import command, results, runner, timing
from ganloss_fast.bench.steps import images, penalised, vocoders
from ganloss_fast.bench.steps.training import Form
from ganloss_fast.bench.train import data, runs, side_by_side, speech
from ganloss_fast.bench.workload import DROP_IN, EAGER, HELPERS

pytestmark = pytest.mark.usefixtures("no_copy")
CPU = torch.device("cpu")
CLOCK = timing.HostClock()
# Both forms in float64 differ by its rounding, which some steps of Adam amplify.
ROUNDING = 1e-7


def small(run: runs.Run, build, load) -> runs.Run:
    return replace(run, name=run.name.partition(":")[0], build=build, load=load, samples=2)


def pictures(source: data.Source) -> torch.Tensor:
    return torch.rand(20, 3, 32, 32) * 2 - 1


VOCODER, ESRGAN, TAMING, DIGITS = runs.RUNS
RUNS = {
    "vocoder": small(
        VOCODER,
        lambda device: vocoders.hifigan_step(
            device, 512, vocoders.narrow(2), speech.build_generator(8)
        ),
        lambda source: speech.synthesise(20, 512),
    ),
    "ESRGAN": small(ESRGAN, lambda device: images.esrgan_step(device, 32, 4), pictures),
    "taming": small(TAMING, lambda device: images.taming_step(device, 32, 4), pictures),
    "digits": replace(
        small(
            DIGITS,
            lambda device: penalised.wgan_gp_step(device, 16, 8),
            lambda source: torch.rand(40, 784),
        ),
        samples=8,
    ),
}


@pytest.fixture(autouse=True)
def keep_the_default_dtype():
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    monkeypatch.setattr(side_by_side, "BLOCK", 2)


def trained(run: runs.Run, steps: int = 6, seed: int = 0) -> side_by_side.Course:
    plan = side_by_side.Plan(CPU, seed=seed, steps=steps)
    torch.manual_seed(1)
    samples = run.load(data.Source())
    course = side_by_side.start(run, plan)
    side_by_side.train(course, samples, plan, CLOCK)
    return course


def rows_of(course: side_by_side.Course) -> dict[str, results.Row]:
    facts = {**runner.environment(runner.Plan(CPU), CLOCK), "copy_GB_per_s": 10.0}
    return {row.contender: row for row in side_by_side.rows(course, facts, side_by_side.Plan(CPU))}


@pytest.mark.parametrize("name", RUNS)
def test_in_double_precision_the_forms_stay_together(name):
    torch.set_default_dtype(torch.float64)
    course = trained(RUNS[name])
    first, *_, last = course.losses[EAGER]
    assert first != last
    for form in (DROP_IN, HELPERS):
        assert side_by_side.drift(course, form) < ROUNDING
        assert course.apart[form] < ROUNDING
    assert not course.failed


def test_what_drifts_is_seen_to_drift():
    course = trained(RUNS["digits"])
    course.losses[HELPERS] = [[s, d + 0.1, g] for s, d, g in course.losses[EAGER]]
    moved = [d for _, d, _ in course.losses[EAGER]]
    assert side_by_side.drift(course, HELPERS) == pytest.approx(0.1 / (max(moved) - min(moved)))
    assert side_by_side.drift(course, EAGER) == 0


def test_the_twin_starts_one_rounding_apart():
    course = side_by_side.start(RUNS["digits"], side_by_side.Plan(CPU))
    written, twin = (
        next(course.forms[name].training.generator.parameters())
        for name in (EAGER, side_by_side.TWIN)
    )
    apart = ((twin - written) / written).abs().max()
    assert 0 < apart <= 2 * torch.finfo(torch.float32).eps


def test_equal_seeds_learn_the_same_and_others_do_not():
    one, same, other = (trained(RUNS["ESRGAN"], seed=seed).losses for seed in (0, 0, 1))
    assert one == same
    assert one[EAGER] != other[EAGER]


def with_helpers(run: runs.Run, step) -> runs.Run:
    """The run, with another last form."""

    def build(device):
        forms = run.build(device)
        form = forms[HELPERS]
        return {**forms, HELPERS: Form(step(form.step), form.training)}

    return replace(run, build=build)


def test_a_form_that_learns_something_else_fails_and_the_others_do_not():
    def slightly_wrong(step):
        return lambda training: [1.001 * gradient for gradient in step(training)]

    rows = rows_of(trained(with_helpers(RUNS["digits"], slightly_wrong)))
    assert rows[HELPERS].status.startswith("failed: gradients differ from those as written by")
    assert rows[DROP_IN].measured


def test_a_form_that_raises_costs_its_own_row():
    def raising(step):
        def out_of_memory(training):
            raise torch.OutOfMemoryError("out of memory")

        return out_of_memory

    rows = rows_of(trained(with_helpers(RUNS["digits"], raising)))
    assert rows[HELPERS].status == "failed: out of memory"
    assert rows[DROP_IN].measured


def test_a_form_that_fails_on_the_way_ends_no_training_and_holds_none_up():
    def failing_later(step):
        calls = []

        def fails(training):
            calls.append(1)
            if len(calls) > 4:
                raise torch.OutOfMemoryError("out of memory")
            return step(training)

        return fails

    run = with_helpers(RUNS["ESRGAN"], failing_later)
    plan = side_by_side.Plan(CPU, most_seconds=0.1)  # and no number of steps
    course = side_by_side.start(run, plan)
    side_by_side.train(course, run.load(data.Source()), plan, CLOCK)
    rows = rows_of(course)
    assert rows[HELPERS].status == "failed: out of memory"
    assert rows[DROP_IN].measured


def test_rows_say_how_much_is_trained_on_in_a_second_and_where_a_gain_can_come_from():
    rows = rows_of(trained(RUNS["digits"], steps=8))
    assert list(rows) == [EAGER, DROP_IN, HELPERS]
    for row in rows.values():
        assert row.samples_per_s == pytest.approx(8 / (row.p50_us / 1e6), rel=1e-3)
        assert row.seconds_per_1000 == pytest.approx(1000 / row.samples_per_s, rel=1e-3)
        assert (row.steps, row.rounds, row.unit) == (8, 3, "images")
        assert 0 < row.loss_share < 1
        assert 0 < row.discarded_share < 1
        assert row.losses[0][0] == 0
        assert row.losses[-1][0] == 8


def test_the_first_block_warms_up_and_the_worst_gradients_count():
    course = trained(RUNS["digits"], steps=8)
    for taken in course.seconds.values():
        taken[:] = [9.0, 1.0, 2.0, 1.0]
    course.apart[HELPERS] = 5e-5
    side_by_side._compare(course, RUNS["digits"].batch(torch.rand(8, 784)))
    course.losses[side_by_side.TWIN] = [[s, d + 0.1, g] for s, d, g in course.losses[EAGER]]
    row = rows_of(course)[HELPERS]
    assert (row.p50_us, row.rounds, row.difference) == (1e6, 3, 5e-5)
    assert row.drift_of_rounding == round(side_by_side.drift(course, side_by_side.TWIN), 6) > 0


def test_what_is_held_out_is_not_trained_on(monkeypatch):
    pools, block = [], side_by_side._block
    monkeypatch.setattr(
        side_by_side, "_block", lambda *given: (pools.append(given[1]), block(*given))[1]
    )
    run = replace(RUNS["digits"], load=lambda source: torch.arange(40.0)[:, None].expand(40, 784))
    trained(run)
    for pool in pools:
        assert pool[:, 0].tolist() == list(range(side_by_side.HELD_OUT, 40))


def test_a_training_that_cannot_be_built_ends_no_other(monkeypatch):
    def build(device):
        raise torch.OutOfMemoryError("out of memory")

    asked = [replace(RUNS["digits"], name="large", build=build), RUNS["digits"]]
    plan = side_by_side.Plan(CPU, steps=6)
    large, digits = side_by_side.train_all(asked, plan, data.Source(), lambda line: None)
    assert [row.status for row in large] == ["failed: out of memory"]
    assert all(row.measured for row in digits)


def test_a_gradient_that_is_not_a_number_fails_and_one_that_is_missing_too():
    def of(change):
        def wrong(step):
            return lambda training: change(list(step(training)))

        return rows_of(trained(with_helpers(RUNS["digits"], wrong)))[HELPERS].status

    assert "NaN" in of(lambda found: [gradient * float("nan") for gradient in found])
    assert "in number" in of(lambda found: found[:-1])


def test_few_turns_have_a_range_and_many_an_interval():
    few, many = (rows_of(trained(RUNS["digits"], steps))[HELPERS] for steps in (8, 14))
    assert (few.rounds, few.only_range, few.p20_us) == (3, True, None)
    assert (many.rounds, many.only_range) == (6, False)
    assert many.p20_us <= many.p50_us <= many.p80_us


def test_quick_trains_in_short_turns_and_profiles_once(monkeypatch):
    profiles, turns = [], []
    profile, block = side_by_side.findings.profile, side_by_side._block
    monkeypatch.setattr(
        side_by_side.findings, "profile", lambda *given: (profiles.append(1), profile(*given))[1]
    )
    monkeypatch.setattr(
        side_by_side, "_block", lambda *given: (turns.append(given[-1]), block(*given))[1]
    )
    plan = side_by_side.Plan(CPU, most_seconds=1e-3, quick=True)
    (rows,) = side_by_side.train_all([RUNS["digits"]], plan, data.Source(), lambda line: None)
    assert turns == [1, 1, 1]  # one warms up
    assert profiles == [1]
    assert all(row.measured and row.only_range for row in rows)


# ---- the command -------------------------------------------------------------------------------


def train(monkeypatch, *arguments: str, which=("ESRGAN", "taming")) -> int:
    monkeypatch.setattr(command, "RUNS", tuple(RUNS[name] for name in which))
    return command.main(["train", "--steps", "6", *arguments])


def test_a_training_writes_rows_that_are_read_again_and_shown(monkeypatch, tmp_path, capsys):
    assert train(monkeypatch, "--out", str(tmp_path)) == 0
    found = results.read_rows(tmp_path)
    assert len(found) == 6
    assert [row.contender for row in found if row.losses] == 2 * [EAGER, DROP_IN, HELPERS]
    said = capsys.readouterr().out
    assert "images" in said
    assert "loss and penalty are" in said
    assert command.main(["report", str(tmp_path), "--out", str(tmp_path / "page")]) == 0
    assert len(list((tmp_path / "page").glob("training-*.png"))) == 2


def test_an_interrupted_training_keeps_what_it_has(monkeypatch, tmp_path, capsys):
    block, blocks = side_by_side._block, []

    def interrupted(*arguments):
        blocks.append(1)
        if len(blocks) > 5:  # the first of the two trainings has three
            raise KeyboardInterrupt
        block(*arguments)

    monkeypatch.setattr(side_by_side, "_block", interrupted)
    assert train(monkeypatch, "--out", str(tmp_path)) == 130
    found = results.read_rows(tmp_path)
    steps = {row.workload: (row.steps, row.measured) for row in found}
    assert steps == {RUNS["ESRGAN"].name: (6, True), RUNS["taming"].name: (4, False)}
    assert found[-1].status == "not measured: 4 steps are too few to time, 6 are the least"
    blocks.clear()
    more = ("--steps", "100", "--out", str(tmp_path))
    assert train(monkeypatch, *more, which=["taming"]) == 130
    (row, *_) = (r for r in results.read_rows(tmp_path) if r.workload == RUNS["taming"].name)
    assert row.steps == 10
    assert "Interrupted" in capsys.readouterr().out


def test_an_interrupt_before_the_first_step_ends_everything(monkeypatch, tmp_path):
    """The batch that a step is built with need not fit the run's generator."""

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "_compare", interrupted)
    assert train(monkeypatch, "--out", str(tmp_path), which=["vocoder", "digits"]) == 130
    found = results.read_rows(tmp_path)
    assert {row.workload for row in found} == {RUNS["vocoder"].name}
    least = "not measured: 0 steps are too few to time, 6 are the least"
    assert {row.status for row in found} == {least}


def without(monkeypatch, *packages: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in packages else find(name)
    )


def test_a_package_that_is_missing_costs_its_own_training(monkeypatch, tmp_path, capsys):
    without(monkeypatch, "sklearn")
    monkeypatch.setattr(command, "RUNS", (RUNS["ESRGAN"], DIGITS))
    assert command.main(["train", "--steps", "6", "--out", str(tmp_path)]) == 0
    lines = (tmp_path / results.JSON_LINES).read_text().splitlines()
    status = [json.loads(line)["status"] for line in lines]
    missing = "not measured: digits need scikit-learn: pip install scikit-learn"
    assert status == [*3 * ["measured"], missing]
    assert missing in capsys.readouterr().out


@pytest.mark.parametrize("packages", [["skimage"], ["skimage", "PIL"]])
def test_photographs_name_the_packages_that_they_need(monkeypatch, packages):
    without(monkeypatch, *packages)
    with pytest.raises(data.NoData, match=r"photographs need scikit-image.*: pip install"):
        data.Source().photographs(64)


@pytest.mark.parametrize("make", ["nothing", "file", "empty"])
def test_a_folder_without_photographs_is_said_at_once(monkeypatch, tmp_path, capsys, make):
    pytest.importorskip("skimage", reason="the bench extras are not installed")
    folder = tmp_path / "photographs"
    if make == "file":
        folder.write_text("")
    elif make == "empty":
        folder.mkdir()
    monkeypatch.setattr(command, "RUNS", (RUNS["digits"], ESRGAN))
    assert command.main(["train", "--data", str(folder)]) == 2
    out, said = capsys.readouterr()
    assert "--data:" in said
    assert said.count("\n") == 1
    assert "1 of 2" not in out


def test_an_unknown_training_names_the_known_ones(capsys):
    assert command.main(["train", "--only", "nonsense"]) == 2
    said = capsys.readouterr().err
    assert "nothing of 4 has 'nonsense' in its name" in said
    assert any(run.name in said for run in runs.RUNS)
    assert said.count("\n") == 1


# ---- the data ----------------------------------------------------------------------------------


def test_the_data_is_real_in_range_and_always_the_same():
    pytest.importorskip("skimage", reason="the bench extras are not installed")
    source = data.Source()
    photographs = source.photographs(64)
    assert photographs.shape == (data.PHOTOGRAPHS, 3, 64, 64)
    sounds = source.speech(runs.SAMPLES)
    torch.manual_seed(7)
    assert torch.equal(sounds, data.Source().speech(runs.SAMPLES))
    for found in (photographs, sounds):
        assert found.abs().max() <= 1
        assert found.std() > 0.05


def test_digits_are_digits():
    pytest.importorskip("sklearn", reason="the bench extras are not installed")
    digits = data.Source().digits()
    assert digits.shape == (1797, 784)
    assert digits.min() == -1
    assert digits.max() <= 1
    centre, corner = digits.view(-1, 28, 28)[:, 10:18, 10:18], digits.view(-1, 28, 28)[:, :3, :3]
    assert centre.mean() > corner.mean() + 0.5
