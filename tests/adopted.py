"""Scripts for ``adopt``, and what they compute as they are and as they are proposed."""

from __future__ import annotations

import textwrap
import types
from dataclasses import dataclass

import torch
from torch import nn

from ganloss_fast.adopt.script import Proposal, propose

HEAD = """
import numpy as np
import torch, torch.nn as nn, torch.nn.functional as F
from torch import autograd
torch.manual_seed(0)
D = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 1))
N = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Dropout(0.5), nn.Linear(8, 1))
E, G = nn.Linear(4, 3), nn.Linear(3, 4)
x, z = torch.randn(6, 4), torch.randn(6, 3)
criterion = nn.BCEWithLogitsLoss()
"""
NETWORKS = ("D", "N", "E", "G")
SKIPPED = (types.ModuleType, types.FunctionType, type, nn.Module, torch.optim.Optimizer)


@dataclass
class Executed:
    """What a script leaves: its numbers by name, and the gradients of ``out``."""

    numbers: dict[str, torch.Tensor]
    gradients: list[torch.Tensor | None]
    random: torch.Tensor  # where the generator of random numbers stands


def executed(source: str) -> Executed:
    """Runs a script in double precision."""
    names: dict = {"__name__": "script"}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        exec(compile(source, "script", "exec"), names)
        out = names["out"]
        parameters = [p for name in NETWORKS for p in names[name].parameters()]
        gradients = [None] * len(parameters)
        if isinstance(out, torch.Tensor) and out.requires_grad:
            gradients = list(torch.autograd.grad(out, parameters, allow_unused=True))
    finally:
        torch.set_default_dtype(before)
    numbers = {
        name: torch.as_tensor(value).detach()
        for name, value in names.items()
        if isinstance(value, (float, torch.Tensor))
    }
    numbers |= {f"parameter {k}": p.detach() for k, p in enumerate(parameters)}
    return Executed(numbers, gradients, torch.get_rng_state())


def same_numbers(body: str, may_vanish: tuple[str, ...] = ()) -> Proposal:
    """The proposal for a script, which leaves what the script leaves: the values of its names (but
    for those that the edit takes over), gradients, and random numbers drawn."""
    source = HEAD + textwrap.dedent(body)
    proposal = propose(source)
    theirs, ours = executed(source), executed(proposal.after)
    gone = theirs.numbers.keys() - ours.numbers.keys()
    assert gone <= {*may_vanish}, f"{gone} are no longer there"
    for name in theirs.numbers.keys() - gone:
        torch.testing.assert_close(ours.numbers[name], theirs.numbers[name], msg=name)
    for our, their in zip(ours.gradients, theirs.gradients, strict=True):
        zeros = None if our is None else torch.zeros_like(our)
        torch.testing.assert_close(our, zeros if their is None else their)
    assert torch.equal(ours.random, theirs.random)
    return proposal


def left_alone(body: str) -> str:
    """What is said of a script that runs, and in which nothing is changed."""
    executed(HEAD + textwrap.dedent(body))
    return said_of(body)


def said_of(body: str) -> str:
    """What is said of a script in which nothing is changed, whether it runs or not."""
    source = HEAD + textwrap.dedent(body)
    proposal = propose(source)
    assert proposal.after == source
    return " | ".join(remark.text for remark in proposal.left_alone)
