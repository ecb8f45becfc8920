"""The allow-list of the graph cut: every row proves itself, and a wrong one is left out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ganloss_fast.diagnose import CountFlops
from ganloss_fast.graph_cut import rows


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.node)
def test_every_row_proves_itself_on_this_torch(row):
    assert rows.row_holds(row)


@pytest.mark.parametrize(
    "row",
    [
        rows.Row("EluBackwardBackward0", 1, lambda x, _: F.elu(x)),
        rows.Row("LeakyReluBackwardBackward0", 0, lambda x, _: F.leaky_relu(x, 0.2)),
        rows.Row("LeakyReluBackwardBackward0", 7, lambda x, _: F.leaky_relu(x, 0.2)),
        rows.Row("PreluKernelBackwardBackward0", 1, lambda x, w: F.prelu(x, w)),
        rows.Row("NoSuchBackward0", 1, lambda x, _: F.relu(x)),
    ],
    ids=["smooth", "wrong edge", "edge out of range", "PReLU without its condition", "absent"],
)
def test_a_wrong_row_fails_its_proof(row):
    assert not rows.row_holds(row)


def test_a_row_that_fails_is_left_alone_with_a_warning(monkeypatch):
    wrong = rows.Row("LeakyReluBackwardBackward0", 0, lambda x, _: F.leaky_relu(x, 0.2))
    monkeypatch.setattr(rows, "_ROWS_BY_NODE", {wrong.node: wrong})
    rows.proven_row.cache_clear()
    with pytest.warns(UserWarning, match="LeakyReluBackwardBackward0 alone"):
        assert rows.proven_row(wrong.node) is None
    rows.proven_row.cache_clear()


def test_the_proof_is_blind_to_the_callers_modes():
    rows.proven_row.cache_clear()
    state = torch.get_rng_state()
    with torch.no_grad(), CountFlops() as counter, torch.autocast("cpu", torch.bfloat16):
        for row in rows.ROWS:
            assert rows.proven_row(row.node) is row
    assert counter.total == 0
    assert torch.equal(state, torch.get_rng_state())
