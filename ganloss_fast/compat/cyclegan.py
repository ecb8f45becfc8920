"""CycleGAN and pix2pix (junyanz/pytorch-CycleGAN-and-pix2pix): ``models/networks.py``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganloss_fast.checks import quoted
from ganloss_fast.compat._criteria import (
    Mode,
    ModeCriterion,
    as_logits,
    check_mode,
    cross_entropy,
    least_squares,
    probability_loss,
    side_loss,
)
from ganloss_fast.losses.table import Label, Wasserstein
from ganloss_fast.penalties.critic.call import Critic
from ganloss_fast.penalties.gradient_penalty import gradient_penalty_details
from ganloss_fast.penalties.points import Where
from ganloss_fast.penalties.table import PENALTIES

_PROBABILITIES = "probabilities"  # what use_lsgan=False stands for


class GANLoss(ModeCriterion):
    """The criterion of CycleGAN and pix2pix (Zhu et al., 2017; Isola et al., 2017).

    .. math:: lsgan: E[(D - t)^2] \\quad vanilla: E[bce(D, t)] \\quad wgangp: \\mp E[D]

    with ``t`` the real or the fake label; ``-`` for real. The factor 1/2 is the trainer's.

    Args:
        gan_mode: ``"lsgan"``, ``"vanilla"`` or ``"wgangp"``. A bool, and a call that names no mode,
            is the older form of this criterion, whose first argument is ``use_lsgan=True``.
        target_real_label: label of real samples, and of fake ones in the generator's loss.
        target_fake_label: label of fake samples.
        use_lsgan: the older form by its own name, in place of ``gan_mode``. False is binary
            cross-entropy of the *probabilities* of a discriminator that ends in a sigmoid.
        tensor: of the older form; not used.

    The labels are 0-d buffers, ``real_label`` and ``fake_label``, saved and loaded with the module.
    What is written to them counts from the next call on; they are read from the device only then.
    A write through ``.data`` or a NumPy view leaves no trace and is not seen: write
    ``criterion.real_label.fill_(0.9)``, or assign a new tensor.

    Raises:
        ganloss_fast.compat.UnknownMode: for another mode.
        TypeError: for a ``gan_mode`` and a ``use_lsgan`` at once.
    """

    MODES: ClassVar[dict[str, Mode]] = {
        "lsgan": least_squares,
        "vanilla": cross_entropy,
        "wgangp": Wasserstein(),
    }
    real_label: Tensor
    fake_label: Tensor

    def __init__(
        self,
        gan_mode: str | bool = True,
        target_real_label: float = 1.0,
        target_fake_label: float = 0.0,
        tensor: Any = None,
        *,
        use_lsgan: bool | None = None,
    ) -> None:
        super().__init__()
        self.gan_mode = self._mode_of(gan_mode, use_lsgan)
        self.register_buffer("real_label", torch.tensor(target_real_label))
        self.register_buffer("fake_label", torch.tensor(target_fake_label))
        self._values = (float(target_real_label), float(target_fake_label))
        self._read: tuple[Any, ...] = (None, None, None)

    def _mode_of(self, gan_mode: str | bool, use_lsgan: bool | None) -> str:
        if use_lsgan is not None and gan_mode is not True:
            raise TypeError(
                f"use_lsgan: it takes the place of gan_mode, which is {quoted(gan_mode)}; give one "
                "of the two."
            )
        if isinstance(gan_mode, bool):
            return "lsgan" if (gan_mode if use_lsgan is None else use_lsgan) else _PROBABILITIES
        check_mode("gan_mode", gan_mode, list(self.MODES))
        return gan_mode

    def get_target_tensor(self, prediction: Tensor, target_is_real: bool) -> Tensor:
        """The label, expanded to the shape of the prediction."""
        return (self.real_label if target_is_real else self.fake_label).expand_as(prediction)

    def labels(self) -> tuple[Label, Label]:
        """The buffers' values on the host, read where they changed: by a checkpoint, by hand."""
        real, fake = self._buffers["real_label"], self._buffers["fake_label"]
        assert real is not None
        assert fake is not None
        if torch.compiler.is_compiling():  # a graph would keep the values of its first call
            return real.to(torch.get_default_dtype()), fake.to(torch.get_default_dtype())
        versions = (_version(real), _version(fake))
        if real is not self._read[0] or fake is not self._read[1] or versions != self._read[2]:
            first, second = torch.stack([real, fake]).tolist()
            self._values = (float(first), float(second))
            self._read = (real, fake, versions)
        return self._values

    def forward(self, prediction: Tensor, target_is_real: bool) -> Tensor:
        """The loss of one side, 0-d; float32, or float64 for float64 predictions."""
        logits = as_logits("prediction", prediction)
        if self.gan_mode == _PROBABILITIES:
            return probability_loss([logits], self.labels()[0 if target_is_real else 1])
        return side_loss(logits, target_is_real, self.loss_of(self.gan_mode))

    __call__ = forward  # as there: without hooks


def _version(label: Tensor) -> object:
    """Differs after every change in place; always, for a tensor that does not count them."""
    return object() if label.is_inference() else label._version


def cal_gradient_penalty(
    netD: Critic,
    real_data: Tensor,
    fake_data: Tensor,
    device: torch.device | str | int,
    type: str = "mixed",
    constant: float = 1.0,
    lambda_gp: float = 10.0,
) -> tuple[Tensor | float, Tensor | None]:
    """The gradient penalty of CycleGAN's code (Gulrajani et al., 2017).

    .. math:: \\lambda \\, E_i[(\\|g_i + 10^{-16}\\|_2 - constant)^2]

    As there, ``type="real"`` and ``"fake"`` call ``requires_grad_`` on the caller's tensor, and
    the penalty reaches a generator whose samples are not detached.

    Args:
        netD: the critic.
        real_data: real samples [B, ...].
        fake_data: generated samples, alike in shape.
        device: where ``alpha`` [B, 1] is drawn.
        type: ``"mixed"`` (``alpha real + (1 - alpha) fake``), ``"real"`` or ``"fake"``.
        constant: the norm that is asked for.
        lambda_gp: weight of the penalty.

    Returns:
        The penalty (0-d) and the gradients [B, elements of a sample] with their graph;
        ``(0.0, None)`` where ``lambda_gp`` is not positive.

    Raises:
        ganloss_fast.compat.UnknownMode: for another ``type``.
    """
    if not lambda_gp > 0.0:
        return 0.0, None
    check_mode("type", type, ("real", "fake", "mixed"))
    at: Where = "mixed"
    alpha = None
    if type == "mixed":
        alpha = torch.rand(real_data.shape[0], 1, device=device).flatten().to(real_data.dtype)
    else:
        at = "real" if type == "real" else "fake"
        (real_data if type == "real" else fake_data).requires_grad_(True)
    penalty = replace(PENALTIES["cyclegan"].penalty, target=constant)
    details = gradient_penalty_details(
        netD, real_data, fake_data, penalty, at=at, alpha=alpha, weight=lambda_gp
    )
    return details.penalty, details.gradients[0].flatten(1)
