"""The quick workloads as a pytest-benchmark suite, for those who change a kernel.

    make speed                                                   # all of it, a minute or two
    make speed ARGS="-k 'hinge and not eager' --benchmark-autosave"
    make speed ARGS="--benchmark-compare --benchmark-compare-fail=median:30%"
    make speed ARGS="-k hinge --benchmark-cprofile=tottime"

It takes one contender after the other, so that a table of one run is as steady as the machine is.
Whether something became faster ``python -m benchmarks compare`` tells better: there the contenders
take turns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.penalty_workloads import workloads as penalty_workloads
from ganloss_fast.bench import agreement, catalogue, runner, timing
from ganloss_fast.bench.workload import EAGER, HELPERS, OURS, Contender, Workload

QUICK = catalogue.choose(catalogue.WORKLOADS, (), quick=True)
PENALTIES = catalogue.choose(penalty_workloads(), ("DCGAN: penalty",), quick=False)
PLAN = runner.Plan(torch.device("cpu"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Then processor time counts, which leaves other programs out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    timing.raise_trim_threshold()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=[*QUICK, *PENALTIES], ids=lambda each: each.name)
def workload(request: pytest.FixtureRequest) -> Workload:
    return request.param


@pytest.fixture(scope="module")
def pair(workload: Workload) -> Mapping[str, Contender]:
    """This package, with its step helpers where the workload is a whole step, and the code as
    people write it, once the two are known to return the same."""
    found = runner.chosen(workload, PLAN)
    ours, eager = found[OURS if OURS in found else HELPERS], found[EAGER]
    apart = agreement.distance(eager(), ours())
    assert apart <= workload.tolerance, f"{OURS} and {EAGER} differ by {apart:.1e}"
    return {OURS: ours, EAGER: eager}


@pytest.mark.benchmark(timer=time.process_time, min_time=0.004, max_time=0.2)
@pytest.mark.parametrize("whose", [OURS, EAGER])
def test_speed(
    workload: Workload, pair: Mapping[str, Contender], whose: str, benchmark: BenchmarkFixture
) -> None:
    benchmark.group = workload.name
    benchmark(pair[whose])
