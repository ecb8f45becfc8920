"""What a finished or interrupted demo has shown, as numbers and as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

from rich.table import Table

from demo.training import StepRecord

WARM_UP_STEPS = 3  # first calls allocate and choose convolution kernels


@dataclass(frozen=True)
class RunSummary:
    """Medians of one run's times, and its mean losses over the last quarter of its steps."""

    name: str
    critic_loss: float
    generator_loss: float
    critic_milliseconds: float
    generator_milliseconds: float
    images_per_second: float
    peak_megabytes: float


@dataclass(frozen=True)
class Agreement:
    """How closely the two runs compute the same thing."""

    first_step: float  # |critic loss difference| of the first step, before rounding grows
    same_weights_loss: float  # the largest along the run, at equal weights and batches
    same_weights_gradient: float  # largest relative difference of the critic's gradient there


@dataclass(frozen=True)
class PenaltyShare:
    """The penalty within the critic step, and what Amdahl's law lets the step gain from it."""

    plain_milliseconds: float
    fast_milliseconds: float
    speed_up: float
    share: float  # of the critic step of plain PyTorch
    attainable: float  # speed-up of the critic step if nothing but the penalty got faster


def summarise_run(
    name: str, steps: Sequence[StepRecord], batch: int, peak_bytes: int
) -> RunSummary:
    timed = steps[WARM_UP_STEPS:] or steps
    critic = median(step.critic_seconds for step in timed)
    generator = median(step.generator_seconds for step in timed)
    last = steps[-max(1, len(steps) // 4) :]
    return RunSummary(
        name=name,
        critic_loss=mean(step.critic_loss for step in last),
        generator_loss=mean(step.generator_loss for step in last),
        critic_milliseconds=1e3 * critic,
        generator_milliseconds=1e3 * generator,
        images_per_second=batch / (critic + generator),
        peak_megabytes=peak_bytes / 1e6,
    )


def summarise_agreement(
    records: Mapping[str, Sequence[StepRecord]], checks: Sequence[tuple[float, float]]
) -> Agreement:
    first, second = (steps[0].critic_loss for steps in records.values())
    return Agreement(
        first_step=abs(first - second),
        same_weights_loss=max(loss for loss, _ in checks),
        same_weights_gradient=max(gradient for _, gradient in checks),
    )


def summarise_penalty(seconds: Sequence[Sequence[float]], plain: RunSummary) -> PenaltyShare | None:
    """``seconds``: pairs of plain and fast. None for a loss without a penalty."""
    if not seconds:
        return None
    slow, fast = (1e3 * median(column) for column in zip(*seconds))
    speed_up = median(a / b for a, b in seconds)
    share = slow / plain.critic_milliseconds
    return PenaltyShare(
        plain_milliseconds=slow,
        fast_milliseconds=fast,
        speed_up=speed_up,
        share=share,
        attainable=1 / (1 - share + share / speed_up),
    )


def explain(penalty: PenaltyShare, measured: float) -> str:
    return (
        f"The penalty is {penalty.share:.0%} of the plain critic step and "
        f"{penalty.speed_up:.2f}x faster: by Amdahl's law that makes the step "
        f"{penalty.attainable:.2f}x faster (measured {measured:.2f}x)."
    )


def paired_ratio(
    slow: Sequence[StepRecord], fast: Sequence[StepRecord], seconds: Callable[[StepRecord], float]
) -> float:
    """Median of the ratios of neighbouring steps, which a drifting machine leaves alone."""
    pairs = list(zip(slow, fast))
    pairs = pairs[WARM_UP_STEPS:] or pairs
    return median(seconds(a) / seconds(b) for a, b in pairs)


def summarise_ratios(records: Mapping[str, Sequence[StepRecord]]) -> dict[str, float]:
    """How many times faster the second run is."""
    slow, fast = records.values()
    return {
        "critic_step": paired_ratio(slow, fast, lambda step: step.critic_seconds),
        "generator_step": paired_ratio(slow, fast, lambda step: step.generator_seconds),
        "whole_step": paired_ratio(
            slow, fast, lambda step: step.critic_seconds + step.generator_seconds
        ),
    }


def table(
    runs: Sequence[RunSummary],
    ratios: Mapping[str, float],
    agreement: Agreement,
    penalty: PenaltyShare | None,
    title: str,
) -> Table:
    """For the terminal."""
    plain, fast = runs
    result = Table(title=title, title_justify="left", caption_justify="left")
    result.add_column("")
    result.add_column(plain.name, justify="right")
    result.add_column(fast.name, justify="right")
    result.add_column("speed-up", justify="right")
    rows: list[tuple[str, float, float, float]] = [
        (
            "critic step, ms",
            plain.critic_milliseconds,
            fast.critic_milliseconds,
            ratios["critic_step"],
        ),
        (
            "generator step, ms",
            plain.generator_milliseconds,
            fast.generator_milliseconds,
            ratios["generator_step"],
        ),
        (
            "images per second",
            plain.images_per_second,
            fast.images_per_second,
            ratios["whole_step"],
        ),
    ]
    if penalty:
        rows.insert(
            1,
            (
                "  penalty alone, ms",
                penalty.plain_milliseconds,
                penalty.fast_milliseconds,
                penalty.speed_up,
            ),
        )
    for label, slow, quick, ratio in rows:
        result.add_row(label, f"{slow:.1f}", f"{quick:.1f}", f"{ratio:.2f}x")
    if plain.peak_megabytes:
        result.add_row(
            "peak memory of steps, MB",
            f"{plain.peak_megabytes:.0f}",
            f"{fast.peak_megabytes:.0f}",
            "",
        )
    result.add_section()
    for label, first, second in (
        ("critic loss, last quarter", plain.critic_loss, fast.critic_loss),
        ("generator loss, last quarter", plain.generator_loss, fast.generator_loss),
    ):
        result.add_row(label, f"{first:.3f}", f"{second:.3f}", "")
    result.add_section()
    for label, difference in (
        ("critic loss, first step", agreement.first_step),
        ("critic loss at equal weights", agreement.same_weights_loss),
        ("its gradient, relative", agreement.same_weights_gradient),
    ):
        result.add_row(label, "differ by", f"<= {difference:.1e}", "")
    return result


def as_json(
    runs: Sequence[RunSummary],
    ratios: Mapping[str, float],
    agreement: Agreement,
    penalty: PenaltyShare | None,
) -> dict[str, Any]:
    return {
        "runs": [asdict(run) for run in runs],
        "speed_up": dict(ratios),
        "agreement": asdict(agreement),
        "penalty": penalty and asdict(penalty),
    }
