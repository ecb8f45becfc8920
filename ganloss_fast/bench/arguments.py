"""The arguments of the command."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from ganloss_fast.bench import compare as comparing
from ganloss_fast.bench import gate as gating
from ganloss_fast.bench import timing
from ganloss_fast.bench.argument_types import (
    above_0,
    device,
    positive,
    seed,
    share,
    threads,
)
from ganloss_fast.bench.profile import target
from ganloss_fast.bench.workload import BUILT_IN, COMPILE, EAGER, OURS

MOST_MINUTES, QUICK_MINUTES = 18.0, 0.7  # of a run: under twenty, and under one, with all around it
TRAIN_SECONDS, QUICK_TRAIN_SECONDS = 60.0, 2.0  # of one training


def parser(prog: str) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog=prog, description="What ganloss_fast gains on this machine.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_list(commands.add_parser("list", help="every workload: shapes, dtypes, bytes, source"))
    _add_run(commands.add_parser("run", help="measure"))
    _add_train(commands.add_parser("train", help="whole trainings on real data, side by side"))
    _add_profile(commands.add_parser("profile", help="your own discriminator, or training step"))
    _add_compare(commands.add_parser("compare", help="two result files: what got slower?"))
    _add_report(commands.add_parser("report", help="one HTML page and figures from result files"))
    _add_gate(
        commands.add_parser("gate", help="measure quickly: are the ratios still as they were?")
    )
    return top


def _add_list(command: argparse.ArgumentParser) -> None:
    _add_only(command, "workloads")
    command.add_argument("--quick", action="store_true", help="what run --quick measures")


def _add_setting(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=threads, default=1)
    command.add_argument("--seed", type=seed, default=0)
    command.add_argument("--device", type=device, default=torch.device("cpu"))


def _add_only(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help=f"{what} with this in their name or section, in any case; may be given several times",
    )


def _add_out(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, help="folder of rows.jsonl and rows.csv; appended to")


def _add_measuring(command: argparse.ArgumentParser) -> None:
    _add_only(command, "workloads")
    command.add_argument(
        "--quick", action="store_true", help="small workloads, few rounds: under a minute"
    )
    command.add_argument("--rounds", type=positive, help=f"of each contender ({timing.ROUNDS})")
    command.add_argument("--seconds", type=above_0, default=2.0, help="most for one workload (2)")
    command.add_argument(
        "--most-minutes",
        type=above_0,
        help=f"of the run ({MOST_MINUTES:g}; {QUICK_MINUTES:g} with --quick): rows that do not fit "
        f"in say so, {COMPILE} first",
    )
    _add_setting(command)


def _add_run(command: argparse.ArgumentParser) -> None:
    _add_measuring(command)
    command.add_argument(
        "--contender",
        action="append",
        default=[],
        metavar="NAME",
        help=f"besides {OURS} and {EAGER} measure only this; may be given several times",
    )
    command.add_argument("--no-compile", action="store_true", help=f"leave {COMPILE} out")
    _add_out(command)


def _add_train(command: argparse.ArgumentParser) -> None:
    _add_only(command, "trainings")
    command.add_argument("--quick", action="store_true", help="a few steps each: under a minute")
    command.add_argument("--steps", type=positive, help="of each form, at most")
    command.add_argument(
        "--seconds",
        type=above_0,
        help=f"most for one training ({TRAIN_SECONDS:g}; {QUICK_TRAIN_SECONDS:g} with --quick)",
    )
    command.add_argument(
        "--data", type=Path, metavar="FOLDER", help="photographs instead of scikit-image's"
    )
    _add_setting(command)
    _add_out(command)


def _add_profile(command: argparse.ArgumentParser) -> None:
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--factory", metavar="MODULE:FUNCTION", help="a function that makes the discriminator"
    )
    what.add_argument(
        "--step",
        metavar="MODULE:FUNCTION",
        help="a function that returns a dict: step, a function that trains once with the "
        "optimizers; discriminator and generator, the modules; perhaps perceptual",
    )
    command.add_argument("--input", default="4x3x64x64", help="of --factory: a batch, 8x3x256x256")
    command.add_argument("--loss", choices=target.LOSS_NAMES, default="hinge", help="of --factory")
    command.add_argument(
        "--penalty", choices=target.PENALTY_NAMES, default="none", help="of --factory"
    )
    command.add_argument("--device", type=device, help="of --factory (where its weights are)")
    command.add_argument("--threads", type=threads, default=1)


def _add_compare(command: argparse.ArgumentParser) -> None:
    command.add_argument("base", type=Path, help="rows.jsonl, or its folder, held to be right")
    command.add_argument("new", type=Path, help="the same of the run in question")
    command.add_argument("--tolerance", type=share, default=comparing.TOLERANCE)
    command.add_argument("--all", action="store_true", help=f"{COMPILE} and {BUILT_IN} too")
    command.add_argument(
        "--across",
        action="store_true",
        help="compare also where device, GPU or threads are not the same",
    )


def _add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", type=Path, nargs="+", help="rows.jsonl, or their folders")
    command.add_argument("--out", type=Path, default=Path("ganloss-report"), help="folder")


def _add_gate(command: argparse.ArgumentParser) -> None:
    _add_measuring(command)
    command.add_argument(
        "--base", type=Path, required=True, help="of an earlier run, or benchmarks/results/cpu.json"
    )
    command.add_argument("--tolerance", type=share, default=gating.TOLERANCE)
    command.add_argument(
        "--both-ways",
        action="store_true",
        help="fail as well where a ratio is above its base by more than the tolerance, which would "
        "hide a slowdown: record afresh",
    )
    command.set_defaults(quick=True, most_minutes=math.inf)  # a gate leaves nothing out
