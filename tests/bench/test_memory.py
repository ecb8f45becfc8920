"""What the profiler sees of one computation: peak bytes, operators, and nothing of it on stderr."""

from __future__ import annotations

import contextlib

import pytest
import torch

from ganloss_fast import _torch
from ganloss_fast.bench import memory

CPU = torch.device("cpu")
N = 4096  # bytes of a block: 1024 elements


def blocks(count: int) -> torch.Tensor:
    return torch.empty(count * N // 4)


def one_after_the_other():
    for count in (1, 3, 2):
        blocks(count)


def all_at_once():
    return [blocks(count) for count in (1, 3, 2)]


@pytest.mark.parametrize(
    ("work", "blocks_at_the_peak"),
    [(one_after_the_other, 3), (all_at_once, 6), (lambda: None, 0)],
)
def test_the_peak_is_what_is_held_at_one_time(work, blocks_at_the_peak):
    assert memory.peak_memory(work) == blocks_at_the_peak * N


def test_operators_are_those_that_nobody_else_calls():
    x = torch.ones(8, requires_grad=True)
    assert memory.observe(lambda: (x * 2).sum(), CPU).operators == 2
    assert memory.observe(lambda: torch.nn.functional.layer_norm(x, (8,)), CPU).operators == 1


@pytest.fixture
def level():
    """c10's level of its log."""
    found = _torch._cpp_log_level()
    before = found.value
    yield found
    found.value = before


@pytest.mark.parametrize("before", [0, 1, 3])
def test_the_allocator_is_quiet_within_the_block_and_as_loud_as_before_after_it(level, before):
    level.value = before
    with contextlib.suppress(KeyError), _torch.quiet_allocator():
        assert level.value == max(before, 2)
        raise KeyError
    assert level.value == before


def test_blocks_that_are_older_than_the_profile_are_freed_without_a_word(capfd, level):
    level.value = 1  # warnings
    older = [torch.randn(1000) for _ in range(3)]
    memory.observe(older.clear, CPU)
    assert capfd.readouterr().err == ""
    assert level.value == 1
