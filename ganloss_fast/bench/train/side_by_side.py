"""One training in its three forms, in turns, a few steps each at a time.

All start from the same weights and see the same batches and random numbers; whatever slows the
machine for a while slows all of them. Beside them runs a twin of the form as written, whose first
weights are one rounding larger: two trainings of one code drift apart as well, and no other form
can be asked to stay closer than that.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.bench import agreement, bandwidth, memory, runner, timing
from ganloss_fast.bench.budget import NOT_MEASURED
from ganloss_fast.bench.profile import findings
from ganloss_fast.bench.profile.target import Target
from ganloss_fast.bench.results import FAILED, Row
from ganloss_fast.bench.steps.training import Form
from ganloss_fast.bench.timing import Clock, Timing
from ganloss_fast.bench.train.data import NoData, Source
from ganloss_fast.bench.train.runs import Run
from ganloss_fast.bench.workload import ALL, EAGER, Workload

SECTION = "training on real data"
TWIN = "as written, one rounding apart"
BLOCK, QUICK_BLOCK = 4, 1  # steps of one form before the next takes its turn
HELD_OUT, QUICK_HELD_OUT = 16, 4  # samples that are never trained on
TOLERANCE = 1e-4  # of gradients at equal weights, relative
PROFILES, QUICK_PROFILES = 3, 1  # of which the median counts
LEAST_BLOCKS = 2  # that are timed; the first one warms up


@dataclass(frozen=True)
class Plan:
    """How to train."""

    device: torch.device
    seed: int = 0
    steps: int | None = None  # of each form; as many as the seconds allow without it
    most_seconds: float = 60.0  # of one training, on the wall
    quick: bool = False  # shorter turns, and less beside them

    @property
    def block(self) -> int:
        return QUICK_BLOCK if self.quick else BLOCK

    @property
    def held_out(self) -> int:
        return QUICK_HELD_OUT if self.quick else HELD_OUT

    @property
    def profiles(self) -> int:
        return QUICK_PROFILES if self.quick else PROFILES


@dataclass
class Course:
    """A training on its way, or at its end."""

    run: Run
    forms: dict[str, Form]
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of a step, one value a block
    losses: dict[str, list[list[float]]] = field(default_factory=dict)  # [step, D, G]
    apart: dict[str, float] = field(default_factory=dict)  # gradients from those as written
    failed: dict[str, str] = field(default_factory=dict)
    steps: int = 0

    @property
    def blocks(self) -> int:
        """That count, of all that still run: the first one warmed up."""
        running = (taken for name, taken in self.seconds.items() if name not in self.failed)
        return min(map(len, running), default=0) - 1


# ---- the steps ---------------------------------------------------------------------------------


def start(run: Run, plan: Plan) -> Course:
    """The forms, and the twin, all at their first weights."""
    torch.manual_seed(plan.seed)
    forms = run.build(plan.device)
    twin = copy.deepcopy(forms[EAGER])
    with torch.no_grad():
        for module in (twin.training.generator, twin.training.discriminator):
            for parameter in module.parameters():
                parameter.mul_(1 + torch.finfo(parameter.dtype).eps)
    forms[TWIN] = twin
    for form in forms.values():
        form.training.learn(run.rate)
    return Course(run, forms)


def _batches(course: Course, samples: Tensor, plan: Plan, count: int) -> list[dict[str, Tensor]]:
    """The next ones; of equal steps the same."""
    found = []
    for step in range(course.steps, course.steps + count):
        torch.manual_seed(_seed(plan, step))
        chosen = torch.randint(len(samples), (course.run.samples,))
        batch = course.run.batch(samples[chosen])
        found.append({name: tensor.to(plan.device) for name, tensor in batch.items()})
    return found


def _seed(plan: Plan, step: int) -> int:
    return 1_000_003 * plan.seed + step


def _turn(
    course: Course, name: str, batches: Sequence[dict[str, Tensor]], plan: Plan, clock: Clock
) -> None:
    form, first = course.forms[name], course.steps
    steps = iter(range(len(batches)))

    def work() -> None:
        step = next(steps)
        torch.manual_seed(_seed(plan, first + step))
        form.training.batch = batches[step]
        form.step(form.training)

    try:
        seconds = clock.seconds_per_call(work, len(batches))
    except timing.ERRORS as error:
        course.failed[name] = runner.reason(error)
        return
    course.seconds.setdefault(name, []).append(seconds)


def _block(course: Course, samples: Tensor, plan: Plan, clock: Clock, count: int) -> None:
    """Some steps of every form; each block starts with another one."""
    batches = _batches(course, samples, plan, count)
    names = [name for name in course.forms if name not in course.failed]
    first = course.steps // plan.block % len(names)
    for name in names[first:] + names[:first]:
        _turn(course, name, batches, plan, clock)
    course.steps += count


# ---- beside the steps --------------------------------------------------------------------------


def _judge(course: Course, held_out: dict[str, Tensor]) -> None:
    """The losses of every form on the samples held out, by the same code for all."""
    for name, form in course.forms.items():
        judged_at = [step for step, *_ in course.losses.get(name, ())]
        if name in course.failed or course.steps in judged_at:
            continue
        judged = copy.deepcopy(form.training)  # batch norm moves its buffers
        judged.batch = held_out
        with torch.no_grad():
            values = [float(loss) for loss in course.run.losses(judged)]
        course.losses.setdefault(name, []).append([course.steps, *values])
        if not all(map(math.isfinite, values)):
            course.failed[name] = f"{FAILED}its losses are not finite after {course.steps} steps"


def _compare(course: Course, batch: dict[str, Tensor]) -> None:
    """The gradients of every form, at the weights of the form as written."""
    written = course.forms[EAGER].training
    found: dict[str, Sequence[Tensor]] = {}
    for name, form in course.forms.items():
        if name in (TWIN, *course.failed):
            continue
        there = copy.deepcopy(written)
        there.learn(0.0)
        there.batch = batch
        torch.manual_seed(0)
        try:
            found[name] = form.step(there)
        except timing.ERRORS as error:
            course.failed[name] = runner.reason(error)
    for name, gradients in found.items():
        if name != EAGER and EAGER in found:
            apart, why = agreement.disagreement(found[EAGER], gradients, TOLERANCE)
            course.apart[name] = max(course.apart.get(name, 0.0), apart)
            if why is not None:
                course.failed[name] = f"{FAILED}gradients differ from those as written {why}"


def drift(course: Course, name: str) -> float:
    """How far a form's losses are from those as written, on average, in units of how far these
    move; the larger of the two losses."""
    found = []
    for k in (1, 2):
        written, other = ([point[k] for point in course.losses[form]] for form in (EAGER, name))
        moved = max(written) - min(written)
        apart = sum(abs(a - b) for a, b in zip(written, other)) / len(written)
        found.append(apart / max(moved, 1e-12))
    return max(found)


def shares(course: Course, profiles: int = PROFILES) -> tuple[float, float]:
    """Of the step as written, by time: loss and penalty; what is thrown away or done twice."""
    form = copy.deepcopy(course.forms[EAGER])
    training = form.training
    form.training.learn(0.0)
    target = Target(
        course.run.name,
        form,
        [training.discriminator],
        [training.generator],
        [] if training.perceptual is None else [training.perceptual],
    )
    found = [_shares_of(findings.profile(target)) for _ in range(profiles)]
    loss, discarded = (median(side) for side in zip(*found))
    return loss, discarded


def _shares_of(profile: findings.Profile) -> tuple[float, float]:
    whole = profile.ledger.total().seconds
    loss = findings.loss_and_penalty(profile.ledger).seconds
    return loss / whole, profile.together.seconds / whole


def _held_out(run: Run, samples: Tensor, count: int, plan: Plan) -> dict[str, Tensor]:
    batch = run.batch(samples[:count])
    return {name: tensor.to(plan.device) for name, tensor in batch.items()}


# ---- a whole training --------------------------------------------------------------------------


def train(course: Course, samples: Tensor, plan: Plan, clock: Clock) -> None:
    """Until the steps are done or the seconds are over; Ctrl-C leaves the course as it is then."""
    torch.manual_seed(plan.seed)
    held_out = _held_out(course.run, samples, plan.held_out, plan)
    compared = _held_out(course.run, samples, min(plan.held_out, course.run.samples), plan)
    ends = time.monotonic() + plan.most_seconds
    steps = plan.steps or math.inf
    _judge(course, held_out)
    _compare(course, compared)
    judged = 1.0
    while course.steps < steps and EAGER not in course.failed:
        count = int(min(plan.block, steps - course.steps))
        _block(course, samples[plan.held_out :], plan, clock, count)
        if course.steps >= judged:
            _judge(course, held_out)
            judged = max(course.steps + BLOCK, 1.15 * course.steps)
        if course.blocks >= LEAST_BLOCKS and time.monotonic() > ends:
            break
    _judge(course, held_out)
    _compare(course, compared)


def rows(course: Course, facts: dict[str, Any], plan: Plan) -> list[Row]:
    """Of each form."""
    run = course.run
    least = (1 + LEAST_BLOCKS) * plan.block
    too_few = f"{NOT_MEASURED}{course.steps} steps are too few to time, {least} are the least"
    found: dict[str, runner.Measured] = {}
    for name, form in course.forms.items():
        if name == TWIN:
            continue
        status, apart = course.failed.get(name), course.apart.get(name)
        if status is None and course.blocks < LEAST_BLOCKS:
            status = too_few
        if status is not None:
            found[name] = runner.Measured(status)
        else:
            taken = Timing(course.seconds[name][1 : course.blocks + 1])
            observed = memory.observe(form, torch.device(facts["device"]))
            found[name] = runner.Measured("measured", taken, apart, observed)
    workload = Workload(
        run.name,
        SECTION,
        run.build,
        shapes=run.shapes,
        direction="training step",
        source=run.source,
    )
    loss, discarded = None, None
    if found[EAGER].timing is not None:
        loss, discarded = shares(course, plan.profiles)
    return [
        replace(row, loss_share=loss, discarded_share=discarded, **_of_training(course, row))
        for row in runner.rows(workload, found, facts)
    ]


def _of_training(course: Course, row: Row) -> dict[str, Any]:
    run, name = course.run, row.contender
    found: dict[str, Any] = {"steps": course.steps, "samples": run.samples, "unit": run.unit}
    if row.p50_us is not None:
        rate = run.samples / row.p50_us * 1e6
        found |= {"samples_per_s": round(rate, 3), "seconds_per_1000": round(1000 / rate, 3)}
        found["losses"] = course.losses[name]
        found["drift"] = round(drift(course, name), 6)
        found["drift_of_rounding"] = round(drift(course, TWIN), 6)
    return found


def train_all(
    runs: Sequence[Run], plan: Plan, source: Source, say: Callable[[str], object]
) -> Iterator[list[Row]]:
    """One training after the other, and the rows of each as soon as it ended.

    A training whose data cannot be had is a row that says so. When one is interrupted, its rows
    come first and then the KeyboardInterrupt.

    Raises:
        BadFolder: at once, if the user's photographs cannot be used.
    """
    loaded = [_load(run, source) for run in runs]
    clock = timing.clock_of(plan.device)
    facts = {
        **runner.environment(runner.Plan(plan.device, seed=plan.seed), clock),
        **bandwidth.Copies(plan.device).facts(clock),
    }
    for number, (run, samples) in enumerate(zip(runs, loaded), 1):
        left = math.ceil((len(runs) - number + 1) * plan.most_seconds / 60)
        say(f"{number} of {len(runs)}, at most about {left} min left: {run.name}")
        if isinstance(samples, NoData):
            yield [_without_training(run, f"{NOT_MEASURED}{samples}", facts)]
            continue
        yield from _rows_of(run, samples, plan, clock, facts)


def _rows_of(
    run: Run, samples: Tensor, plan: Plan, clock: Clock, facts: dict[str, Any]
) -> Iterator[list[Row]]:
    """What ends a whole training, such as memory that does not hold its forms, ends no other."""
    interrupt: KeyboardInterrupt | None = None
    try:
        course = start(run, plan)
        try:
            train(course, samples, plan, clock)
        except KeyboardInterrupt as error:
            interrupt = error
        found = rows(course, facts, plan)
    except timing.ERRORS as error:
        found = [_without_training(run, runner.reason(error), facts)]
    yield found
    if interrupt is not None:
        raise interrupt


def _load(run: Run, source: Source) -> Tensor | NoData:
    try:
        return run.load(source)
    except NoData as error:
        return error


def _without_training(run: Run, why: str, facts: dict[str, Any]) -> Row:
    workload = Workload(run.name, SECTION, run.build, shapes=run.shapes, source=run.source)
    (row,) = runner.rows(workload, {ALL: runner.Measured(why)}, facts)
    return row
