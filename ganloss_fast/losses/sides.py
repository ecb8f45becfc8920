"""The sides of a loss: from logits to the segments of its real and its fake term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import as_outputs, check_same_device
from ganloss_fast.losses.details import Sides
from ganloss_fast.losses.distributed import check_process_group, mean_over_ranks
from ganloss_fast.losses.table import Loss
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment, Term

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def check_group(loss: Loss, group: object) -> None:
    if group is None:
        return
    check_process_group(group)
    if loss.relativistic != "average":
        raise ValueError(
            "process_group: only relativistic='average' takes means over processes; leave it out."
        )


def pair_outputs(
    real: object, fake: object, loss: Loss | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Both sides' logits as lists that fit each other, and the loss, if one is given."""
    reals, fakes = as_outputs("real", real), as_outputs("fake", fake)
    if len(reals) != len(fakes):
        raise ValueError(
            f"real and fake must hold the same number of outputs: got {len(reals)} real and "
            f"{len(fakes)} fake."
        )
    check_same_device("fake", fakes[0], "real", reals[0])
    if loss is not None and loss.relativistic == "paired":
        for k, (r, f) in enumerate(zip(reals, fakes)):
            if r.shape != f.shape:
                raise ValueError(
                    f"paired relativistic losses need equal shapes: output {k} has real "
                    f"{list(r.shape)} and fake {list(f.shape)}."
                )
            if r.dtype != f.dtype:
                raise ValueError(
                    f"paired relativistic losses need equal dtypes: output {k} has real "
                    f"{r.dtype} and fake {f.dtype}."
                )
    return reals, fakes


def mean_logits(outputs: Sequence[Tensor], group: ProcessGroup | None = None) -> Tensor:
    """[K]: the mean logit of every output, with its gradient, from one call."""
    values = ops.multi_tensor_loss([Segment(t, terms.LINEAR, scale=0.0) for t in outputs]).values
    return values if group is None else mean_over_ranks(values, group)


def _means(
    reals: list[Tensor], fakes: list[Tensor], group: ProcessGroup | None, detach: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """The mean logit of every output, real and fake, as 0-d tensors that carry gradients."""
    logits = [t.detach() for t in reals + fakes] if detach else reals + fakes
    means = mean_logits(logits, group).unbind()
    return list(means[: len(reals)]), list(means[len(reals) :])


def _less(logits: list[Tensor], others: list[Tensor], term: Term, scale: float) -> list[Segment]:
    """``scale * mean term(logit - other)`` for every output; other is a map or a mean."""
    return [Segment(a, term, scale, b) for a, b in zip(logits, others)]


def discriminator_sides(
    reals: list[Tensor],
    fakes: list[Tensor],
    loss: Loss,
    group: ProcessGroup | None,
    real_scale: float = 1.0,
    fake_scale: float = 1.0,
) -> Sides:
    if loss.relativistic is None:
        return {
            "real": loss.segments("real", reals, real_scale),
            "fake": loss.segments("fake", fakes, fake_scale),
        }
    forward, backward = loss.relativistic_terms
    if loss.relativistic == "paired":
        return {"paired": _less(reals, fakes, forward, real_scale)}
    real_means, fake_means = _means(reals, fakes, group, loss.detach_means)
    return {
        "real": _less(reals, fake_means, forward, real_scale),
        "fake": _less(fakes, real_means, backward, fake_scale),
    }


def generator_sides(
    fakes: list[Tensor],
    reals: list[Tensor] | None,
    loss: Loss,
    group: ProcessGroup | None,
    scale: float = 1.0,
) -> Sides:
    if reals is None:
        return {"fake": loss.segments("generator", fakes, scale)}
    forward, backward = loss.relativistic_terms
    if loss.relativistic == "paired":
        return {"paired": _less(fakes, reals, forward, scale)}
    real_means, fake_means = _means(reals, fakes, group)
    return {
        "fake": _less(fakes, real_means, forward, scale),
        "real": _less(reals, fake_means, backward, scale),
    }


def with_logits(sides: Sides, reals: list[Tensor], fakes: list[Tensor]) -> Sides:
    """The sides, and for a paired loss the logits themselves, for their statistics."""
    if "paired" not in sides:
        return sides
    logits = {"real_logits": reals, "fake_logits": fakes}
    return sides | {
        name: [Segment(t, terms.LINEAR, 0.0) for t in tensors] for name, tensors in logits.items()
    }
