"""The allow-list of the graph cut: every row proves itself, and a wrong one is left out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ganloss_fast import graph_cut_rows
from ganloss_fast.diagnose import CountFlops


@pytest.mark.parametrize("row", graph_cut_rows.ROWS, ids=lambda row: row.node)
def test_every_row_proves_itself_on_this_torch(row):
    assert graph_cut_rows.row_holds(row)


@pytest.mark.parametrize(
    "row",
    [
        graph_cut_rows.Row("EluBackwardBackward0", 1, lambda x, _: F.elu(x)),
        graph_cut_rows.Row("LeakyReluBackwardBackward0", 0, lambda x, _: F.leaky_relu(x, 0.2)),
        graph_cut_rows.Row("LeakyReluBackwardBackward0", 7, lambda x, _: F.leaky_relu(x, 0.2)),
        graph_cut_rows.Row("PreluKernelBackwardBackward0", 1, lambda x, w: F.prelu(x, w)),
        graph_cut_rows.Row("NoSuchBackward0", 1, lambda x, _: F.relu(x)),
    ],
    ids=["smooth", "wrong edge", "edge out of range", "PReLU without its condition", "absent"],
)
def test_a_wrong_row_fails_its_proof(row):
    assert not graph_cut_rows.row_holds(row)


def test_a_row_that_fails_is_left_alone_with_a_warning(monkeypatch):
    wrong = graph_cut_rows.Row("LeakyReluBackwardBackward0", 0, lambda x, _: F.leaky_relu(x, 0.2))
    monkeypatch.setattr(graph_cut_rows, "_ROWS_BY_NODE", {wrong.node: wrong})
    graph_cut_rows.proven_row.cache_clear()
    with pytest.warns(UserWarning, match="LeakyReluBackwardBackward0 alone"):
        assert graph_cut_rows.proven_row(wrong.node) is None
    graph_cut_rows.proven_row.cache_clear()


def test_the_proof_is_blind_to_the_callers_modes():
    graph_cut_rows.proven_row.cache_clear()
    state = torch.get_rng_state()
    with torch.no_grad(), CountFlops() as counter, torch.autocast("cpu", torch.bfloat16):
        for row in graph_cut_rows.ROWS:
            assert graph_cut_rows.proven_row(row.node) is row
    assert counter.total == 0
    assert torch.equal(state, torch.get_rng_state())
