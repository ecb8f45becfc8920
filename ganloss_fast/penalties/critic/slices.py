"""Some rows of a batch, cut off from the graphs that they came with, and a critic's run on them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast._torch import has_backward_hooks
from ganloss_fast.penalties.critic.arguments import CriticArguments, Rows, take_rows
from ganloss_fast.penalties.critic.call import CriticCall
from ganloss_fast.penalties.critic.gradient import CriticRun
from ganloss_fast.penalties.critic.modules import (
    ModuleStates,
    before_first_run,
    uses_batch_statistics,
)
from ganloss_fast.penalties.critic.wrapped import WrappedCriticError, refuse_wrapper_in_slices

Runner = Callable[[CriticCall, Sequence[Tensor]], CriticRun]

INTERACTING = (
    "chunk_size: the samples of this critic interact (batch normalisation, mini-batch standard "
    "deviation, a mean over the batch) or depend on their place in it (labels[:len(x)] inside of "
    "the critic: pass them as critic_args), so slices of the batch would give another penalty. "
    "Compute it in one piece."
)


@dataclasses.dataclass(frozen=True)
class Detached:
    """A leaf in a slice's graph that stands for ``origin``, or for ``origin[part]``."""

    origin: Tensor
    part: Rows | None
    leaf: Tensor


class BatchSlice:
    """The samples and arguments of some rows, cut off from the graphs that they came with: those
    would be walked through once for every slice."""

    def __init__(
        self, call: CriticCall, points: Sequence[Tensor], arguments: CriticArguments, part: Rows
    ) -> None:
        self.part = part
        self.detached: list[Detached] = []
        self.rows: list[Tensor] = []  # tensors that were sliced: points, then arguments
        self.points = [self._cut(point, part) for point in points]
        args, kwargs = arguments.mapped(lambda v, batched: self._cut(v, part if batched else None))
        self.call = dataclasses.replace(call, args=args, kwargs=kwargs)

    def _cut(self, value: Any, part: Rows | None) -> Any:
        cut = value if part is None else take_rows(value, part)
        if not isinstance(value, Tensor):
            return cut
        if part is not None:
            cut = cut.detach()
            self.rows.append(cut)
        if value.requires_grad:
            cut = cut.detach().requires_grad_()
            if part is not None:
                self.rows[-1] = cut
            self.detached.append(Detached(value, part, cut))
        return cut


def first_run(
    piece: BatchSlice,
    arguments: CriticArguments,
    states: ModuleStates,
    run: Runner,
    ran: list[torch.nn.Module] | None = None,
) -> CriticRun:
    """Runs the critic, refuses it where slices would see different ones, and freezes its spectral
    norms: for the other slices, and for a checkpoint that runs this slice again. ``ran`` takes
    the modules that run."""

    def check(module: torch.nn.Module) -> None:
        refuse_wrapper_in_slices(module)
        if uses_batch_statistics(module):
            raise ValueError(INTERACTING)
        if has_backward_hooks(module):
            raise ValueError(
                f"chunk_size: {type(module).__name__} has backward hooks, which would run for each "
                "slice, on the gradient of its samples alone. Remove them, or compute in one piece."
            )

    refusals: list[Exception] = []

    def see(module: torch.nn.Module) -> None:
        try:
            check(module)
        except Exception as error:
            refusals.append(error)
            raise
        states.see(module)
        if ran is not None:
            ran.append(module)

    try:
        with before_first_run(piece.call.critic, see):
            result = run_alone(piece, arguments, run, refusals)
        if moved := states.moved():
            raise ValueError(
                f"chunk_size: buffers of the critic change on every forward ({', '.join(moved)}), "
                "so slices would see different critics. Put these modules in evaluation mode, or "
                "compute in one piece."
            )
    except Exception:
        states.restore()
        raise
    finally:
        # With their frames, the errors would keep a checkpoint of the critic half open, and torch
        # its hooks on everything that comes after.
        refusals.clear()
    states.freeze()
    return result


def run_alone(
    piece: BatchSlice,
    arguments: CriticArguments,
    run: Runner,
    refusals: Sequence[Exception] = (),
) -> CriticRun:
    """``run`` on the slice. What the critic itself raises may be for want of the other samples;
    ``refusals`` are ours, raised as its modules run."""
    raised: list[Exception] = []

    @contextlib.contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raised.append(error)
            raise

    def critic(*args: Any, **kwargs: Any) -> Any:
        with noted():
            value = piece.call.critic(*args, **kwargs)
        refuse_few_logits(value, args[0].shape[0])
        return value

    if hasattr(piece.call.critic, "_orig_mod"):  # compiled, and to be known as such
        critic._orig_mod = piece.call.critic._orig_mod  # type: ignore[attr-defined]
    try:
        return run(dataclasses.replace(piece.call, critic=critic), piece.points)
    except Exception as error:
        is_refusal = isinstance(error, WrappedCriticError) or any(error is own for own in refusals)
        if is_refusal or not any(error is own for own in raised):
            raise
        size = piece.points[0].shape[0]
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ValueError(
            f"chunk_size: the critic does not run on {size} of the samples alone ({said}). "
            + arguments.how_they_went_in()
        ) from error
    finally:
        raised.clear()  # see first_run


def refuse_few_logits(value: Any, samples: int) -> None:
    """What joins several samples cannot be added up from slices."""
    outputs = value if isinstance(value, (list, tuple)) else [value]
    for output in outputs:
        if not isinstance(output, Tensor) or not output.dtype.is_floating_point:
            continue  # refused with the reason, later
        if output.dim() == 0 and samples > 1:
            raise ValueError(
                "chunk_size: the critic returns a 0-d output, of which slices cannot know how "
                "it joins the samples. Return one logit or more for each sample."
            )
        if output.numel() < samples:
            raise ValueError(
                f"chunk_size: the critic returns {output.numel()} logits for {samples} samples, so "
                "slices may part what belongs together. Where a logit judges a pack of samples, "
                "pass packs as the samples, inputs.view(B // pac, -1); or compute in one piece."
            )
