"""LeCam: holds a discriminator's logits near moving averages of the other side's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import (
    Logits,
    Weight,
    check_choice,
    check_integer,
    check_number,
    check_same_device,
    check_weight,
    describe,
)
from ganloss_fast.losses.distributed import check_process_group
from ganloss_fast.losses.float32_state import Float32State
from ganloss_fast.losses.reductions import number_of, weighted
from ganloss_fast.losses.sides import mean_logits, pair_outputs
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment, compute_dtype

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LeCamForm = Literal["logits", "means"]
Anchor = float | Tensor
FORMS = ("logits", "means")


def _anchors(name: str, anchor: object, outputs: list[Tensor]) -> tuple[Tensor, ...]:
    """One 0-d anchor for each output, detached."""
    like = outputs[0]
    if not isinstance(anchor, Tensor):
        number = check_number(name, anchor)
        return (like.new_full((), number, dtype=compute_dtype(like.dtype)),) * len(outputs)
    check_same_device(name, anchor, "the logits", like)
    anchor = anchor.detach()
    if anchor.is_floating_point() and anchor.numel() == 1:
        return (anchor.reshape(()),) * len(outputs)
    if anchor.is_floating_point() and anchor.shape == (len(outputs),):
        return anchor.unbind()
    raise ValueError(
        f"{name}: expected a number, or a floating-point tensor with one value or one for each "
        f"of the {len(outputs)} outputs, got {describe(anchor)}."
    )


def _excess_segment(a: Tensor, b: Tensor, counts: Tensor, scale: float) -> Segment:
    """``scale * mean(counts * (a - b)^2)``: the squares of one sign alone."""
    return Segment(a, terms.squared(0.0), scale, b, counts.to(compute_dtype(a.dtype)))


def lecam_regularization(
    real: Logits,
    fake: Logits,
    real_anchor: Anchor,
    fake_anchor: Anchor,
    *,
    form: LeCamForm = "logits",
    weight: Weight = 1.0,
) -> Tensor:
    """LeCam regularisation (Tseng et al., 2021) towards anchors that you hold.

    .. math:: w \\, (E[max(0, r - a_f)^2] + E[max(0, a_r - f)^2])

    as google/lecam-gan, StudioGAN and SEED-Voken compute it, or with ``form="means"``, as MAGVIT
    and 1d-tokenizer do,

    .. math:: w \\, (max(0, E[r] - a_f)^2 + max(0, a_r - E[f])^2)

    ``a_r`` and ``a_f`` are moving averages of the mean real and fake logit: :class:`LeCam` keeps
    them. Nothing waits for the device, and no gradient flows to the anchors.

    Args:
        real: logits on real samples: a tensor of any shape, or a sequence of tensors, one for
            each discriminator output. float16, bfloat16, float32 or float64.
        fake: logits on generated samples, as many outputs.
        real_anchor: ``a_r``: a number, a tensor with one value, or [K] with one for each output.
        fake_anchor: ``a_f``, the same.
        form: ``"logits"`` or ``"means"``.
        weight: factor of the result; a number or a 0-d tensor. The paper's is 0.3.

    Returns:
        0-d tensor, the sum over outputs; float32 (float64 if any logits are float64).

    Raises:
        ValueError: if the two differ in outputs or devices, or an anchor has another shape.
        TypeError: if logits are not floating-point tensors.
    """
    check_choice("form", form, FORMS)
    weight = check_weight("weight", weight)
    reals, fakes = pair_outputs(real, fake)
    real_anchors = _anchors("real_anchor", real_anchor, fakes)
    fake_anchors = _anchors("fake_anchor", fake_anchor, reals)
    if form == "means":
        means = mean_logits(reals + fakes)
        others = torch.stack(fake_anchors + real_anchors)
        return _of_means(means.view(2, -1), others.view(2, -1), weight)
    return _of_logits(reals, fakes, real_anchors, fake_anchors, weight)


def _of_means(means: Tensor, others: Tensor, weight: Weight) -> Tensor:
    """Of the means [2, K] of real and of fake logits, and what they are compared with."""
    others = others.to(means.dtype)
    # Real means should not be above, fake means not below.
    signs = torch.linspace(1.0, -1.0, 2, dtype=means.dtype, device=means.device).unsqueeze(1)
    counts = ((means.detach() - others) * signs <= 0).logical_not()
    scale = number_of(weight) * means.numel()  # the sum of means that are a mean over one each
    segment = _excess_segment(means, others, counts, scale)
    return weighted(weight, ops.multi_tensor_loss([segment]).total)


def _of_logits(
    reals: list[Tensor],
    fakes: list[Tensor],
    real_anchors: tuple[Tensor, ...],
    fake_anchors: tuple[Tensor, ...],
    weight: Weight,
) -> Tensor:
    scale = number_of(weight)
    segments = []
    # Which squares count is asked as "not below", so that NaN logits stay NaN.
    for r, anchor in zip(reals, fake_anchors):
        segments.append(_excess_segment(r, anchor, (r.detach() <= anchor).logical_not(), scale))
    for f, anchor in zip(fakes, real_anchors):
        segments.append(_excess_segment(f, anchor, (f.detach() >= anchor).logical_not(), scale))
    return weighted(weight, ops.multi_tensor_loss(segments).total)


class LeCam(Float32State):
    """:func:`lecam_regularization` with its moving averages (Tseng et al., 2021).

    Called with (real, fake) logits in the discriminator's step, it returns the regulariser, to be
    added to the discriminator's loss, and moves the averages by the mean logits of the batch:

    .. math:: a \\leftarrow decay \\cdot a + (1 - decay) \\, E[logits]

    The averages are buffers on the module's device, saved with it, and never read by the host. In
    ``eval()`` mode, and at a mean that is not finite, they stand still.

    Codebases: ``LeCam(decay=0.9, warm_up=1000, weight=0.3)`` is google/lecam-gan,
    ``LeCam(decay=0.99, start_value=7777.0)`` StudioGAN (``warm_up`` is its
    ``lecam_ema_start_iter``), ``LeCam()`` SEED-Voken, and
    ``LeCam(form="means", update="after", weight=0.001)`` 1d-tokenizer.

    Args:
        decay: of the averages, in [0, 1].
        start_value: of the averages.
        warm_up: so many first calls set the averages to the mean logits of their batch, as if
            ``decay`` were 0.
        form: ``"logits"`` or ``"means"``; see :func:`lecam_regularization`.
        update: ``"before"`` the regulariser is computed, which then sees this batch in its
            averages, or ``"after"``.
        outputs: number of discriminator outputs, each with averages of its own.
        weight: factor of the result; a number or a 0-d tensor.
        process_group: the processes over which the mean logits are taken, as in
            :func:`discriminator_loss`; None for this process alone.

    Its buffers are ``averages`` [2, K], that is ``a_r`` and ``a_f``, which stay float32 whatever
    the module is cast to, as a decay of 0.999 would never move them in half precision; and
    ``calls`` [], how many calls were made, up to ``warm_up``.

    Raises:
        ValueError, TypeError: when it is made, if an option is not one of these; when it is
            called, as :func:`lecam_regularization`.
    """

    averages: Tensor
    calls: Tensor

    def __init__(
        self,
        *,
        decay: float = 0.999,
        start_value: float = 0.0,
        warm_up: int = 0,
        form: LeCamForm = "logits",
        update: Literal["before", "after"] = "before",
        outputs: int = 1,
        weight: Weight = 1.0,
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.decay = check_number("decay", decay)
        if not 0.0 <= self.decay <= 1.0:
            raise ValueError(f"decay: expected a number in [0, 1], got {self.decay}.")
        check_choice("form", form, FORMS)
        check_choice("update", update, ("before", "after"))
        if process_group is not None:
            check_process_group(process_group)
        self.form = form
        self.update = update
        self.warm_up = check_integer("warm_up", warm_up, least=0)
        self.outputs = check_integer("outputs", outputs)
        self.weight = check_weight("weight", weight)
        self.process_group = process_group
        start = torch.full((2, self.outputs), check_number("start_value", start_value))
        self.register_buffer("averages", start.float())
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, real: Logits, fake: Logits) -> Tensor:
        reals, fakes = pair_outputs(real, fake)
        if len(reals) != self.outputs:
            raise ValueError(
                f"real: expected {self.outputs} outputs, which this LeCam keeps averages of, got "
                f"{len(reals)}. Give their number when it is made: LeCam(outputs={len(reals)})."
            )
        check_same_device("real", reals[0], "the averages", self.averages)
        means = self._means(reals, fakes)
        if self.update == "before":
            self._move(means)
        # A copy: the averages move in place, this time or the next, ahead of the backward.
        if self.form == "means":
            result = _of_means(means, self.averages.flip(0), self.weight)
        else:
            anchors = self.averages.flatten().clone().unbind()
            real_anchors, fake_anchors = anchors[: self.outputs], anchors[self.outputs :]
            result = _of_logits(reals, fakes, real_anchors, fake_anchors, self.weight)
        if self.update == "after":
            self._move(means)
        return result

    @property
    def real_average(self) -> Tensor:
        """[K], ``a_r``."""
        return self.averages[0]

    @property
    def fake_average(self) -> Tensor:
        """[K], ``a_f``."""
        return self.averages[1]

    def _means(self, reals: list[Tensor], fakes: list[Tensor]) -> Tensor:
        """[2, K]: the mean logits of real and of fake; with a gradient where the form needs it."""
        outputs = reals + fakes
        if self.form != "means":
            outputs = [t.detach() for t in outputs]
        return mean_logits(outputs, self.process_group).view(2, -1)

    def _move(self, means: Tensor) -> None:
        if not self.training:
            return
        share: float | Tensor = 1.0 - self.decay
        if self.warm_up > 0:
            is_warming_up = self.calls < self.warm_up
            share = torch.where(is_warming_up, 1.0, share).to(self.averages.dtype)
            self.calls.add_(is_warming_up)
        means = means.detach().to(self.averages.dtype)
        # One batch that overflowed would otherwise be in the averages for good.
        means = torch.where(means.abs() < torch.inf, means, self.averages)
        self.averages.lerp_(means, share)

    def extra_repr(self) -> str:
        weight = describe(self.weight) if isinstance(self.weight, Tensor) else self.weight
        return (
            f"decay={self.decay}, warm_up={self.warm_up}, form={self.form!r}, "
            f"update={self.update!r}, outputs={self.outputs}, weight={weight}"
        )
