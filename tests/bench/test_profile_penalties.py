"""The profile of gradient penalties: their second order, their dead branch, their logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import grad  # as users import it

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from profiled_players import AGAIN, DEAD, IN_ONE_STEP, LAYER, Players

from ganloss_fast.bench.profile.ledger import SECOND
from ganloss_fast.diagnose import CountFlops
from ganloss_fast.graph_cut.second_order import cut

FOR_PENALTY = f"{AGAIN}: for the loss, and for the penalty"


def r1(p, gradient_of, points_of):
    points = points_of(p.real)
    gradient = gradient_of(p.d(points).sum(), points)
    return gradient.square().sum(1).mean()


def imported(score, points):
    return grad(score, points, create_graph=True)[0]


def by_backward(score, points):
    score.backward(create_graph=True, inputs=[points])
    return points.grad


WAYS = {
    "autograd.grad": lambda s, x: torch.autograd.grad(s, x, create_graph=True)[0],
    "from torch.autograd import grad": imported,
    "backward(create_graph=True)": by_backward,
}


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("way", WAYS)
def test_a_second_order_is_seen_however_it_is_made(way):
    def step(p):
        p.learn_d(r1(p, WAYS[way], lambda x: x.clone().requires_grad_()))

    profile = Players().profile(step)
    assert profile.ledger.where(lambda o: o.place.part == SECOND).flops == 3 * LAYER
    assert {each.what: each.cost.flops for each in profile.findings} == {DEAD: 2 * LAYER}


@pytest.mark.parametrize(
    "points_of",
    [lambda x: x.detach().requires_grad_(), lambda x: x.clone().requires_grad_()],
    ids=["detach", "clone"],
)
def test_the_logits_of_r1_serve_the_loss_too(points_of):
    def step(p):
        with torch.no_grad():
            fake = p.g(p.noise)
        loss = p.d(fake).mean() - p.d(p.real).mean()
        p.learn_d(loss + r1(p, WAYS["autograd.grad"], points_of))

    profile = Players().profile(step)
    (finding,) = (each for each in profile.findings if each.what == FOR_PENALTY)
    assert finding.cost.flops == 2 * LAYER
    assert "gf.logits_and_penalty" in finding.lines
    assert "generator" not in finding.lines


def test_two_forwards_in_one_step_are_not_for_the_generator():
    def step(p):
        with torch.no_grad():
            fake = p.g(p.noise)
        margin = p.d(p.real).detach().mean()
        p.learn_d((p.d(fake).mean() - p.d(p.real).mean() - margin).square())

    profile = Players().profile(step)
    assert [each.what for each in profile.findings] == [IN_ONE_STEP]
    assert "generator" not in profile.findings[0].lines


class Convolved(nn.Module):
    def __init__(self, groups: int, between: nn.Module, learns: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 3)
        self.between = between
        self.filter = nn.Parameter(torch.rand(8, 8 // groups, 2, 2), requires_grad=learns)
        self.groups = groups

    def forward(self, x):
        x = self.between(F.conv2d(self.first(x), self.filter, groups=self.groups))
        return self.last(F.leaky_relu(x, 0.2)).flatten(1).sum(1)


@pytest.mark.parametrize("learns", [True, False], ids=["learns", "constant"])
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("between", [nn.ReLU, nn.Tanh, lambda: nn.AvgPool2d(2)])
def test_dead_operators_are_those_that_the_cut_leaves_out(learns, groups, between):
    players = Players(Convolved(groups, between(), learns))
    players.real = torch.randn(2, 3, 9, 9)

    def penalty(shorter: bool):
        points = players.real.clone().requires_grad_()
        (g,) = torch.autograd.grad(players.d(points).sum(), points, create_graph=True)
        return (cut([g]).grads[0] if shorter else g).square().sum()

    counted = []
    for shorter in (False, True):
        penalty(shorter).backward()  # proofs run first
        with CountFlops() as counter:
            penalty(shorter).backward()
        counted.append(counter.total)
    ledger = players.profile(lambda p: p.learn_d(penalty(False))).ledger
    assert ledger.where(lambda o: o.dead).flops == counted[0] - counted[1]
