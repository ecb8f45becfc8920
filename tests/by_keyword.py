"""The penalties under one flat set of keywords, for tests that draw them from tables of options.

What is asked of the gradient becomes a value, how it is computed a Differentiation, how the critic
is called a Call; what else there is goes through as it is.
"""

from __future__ import annotations

from typing import Any

import ganloss_fast as gf

ASKED = {"target", "one_sided", "power", "norm", "eps", "eps_at", "normalize_by_mask", "reduction"}
HOW = {"graph_cut", "zero_grads", "chunk_size", "batch_args"}
CALL = {"output_weights", "logit_reduction"}


def _taken(options: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: options.pop(name) for name in names & set(options)}


def _with_how(options: dict[str, Any]) -> dict[str, Any]:
    if how := _taken(options, HOW):
        options["how"] = gf.Differentiation(**how)
    return options


def gradient_penalty(critic, real, fake=None, **options):
    if asked := _taken(options, ASKED):
        options["penalty"] = gf.WGANGP(**asked)
    if call := _taken(options, CALL):
        critic = gf.Call(critic, **call)
    return gf.gradient_penalty(critic, real, fake, **_with_how(options))


def r1_penalty(critic, inputs, **options):
    if asked := _taken(options, ASKED):
        options["penalty"] = gf.R1(**asked)
    if call := _taken(options, CALL):
        critic = gf.Call(critic, **call)
    return gf.r1_penalty(critic, inputs, **_with_how(options))


def _general(options: dict[str, Any]) -> dict[str, Any]:
    """A penalty in the general form, with the weight of R1 if it has none."""
    if asked := _taken(options, ASKED):
        options["penalty"] = gf.NormPenalty(5.0, **asked)
    return options


def penalty_from_logits(logits, inputs, **options):
    return gf.penalty_from_logits(logits, inputs, **_with_how(_general(options)))


def penalty_from_grads(grads, **options):
    return gf.penalty_from_grads(grads, **_general(options))
