"""``mmagic/models/losses/loss_comps``: losses that pick their arguments out of a dict.

``data_info`` says under which key of the dict each argument lies. mmgeneration has these classes
under the same names without ``Comps``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganloss_fast.checks import Weight, check_weight, describe, scaled
from ganloss_fast.compat import basicsr
from ganloss_fast.compat._criteria import Mode, cross_entropy, least_squares
from ganloss_fast.compat.mmagic.gan_loss import (
    gen_path_regularizer,
    gradient_penalty_loss,
    r1_gradient_penalty_loss,
)
from ganloss_fast.losses.adversarial import discriminator_side_loss
from ganloss_fast.losses.table import BCE, Hinge, Wasserstein

DataInfo = Mapping[str, str] | None


class GANLossComps(basicsr.GANLoss):
    """:class:`ganloss_fast.compat.basicsr.GANLoss`, where softplus is ``"wgan-logistic-ns"``.

    Args:
        gan_type: ``"vanilla"``, ``"lsgan"``, ``"wgan"``, ``"wgan-logistic-ns"`` or ``"hinge"``.
        real_label_val: label of real samples, and of fake ones in the generator's loss.
        fake_label_val: label of fake samples.
        loss_weight: factor of the generator's loss; a discriminator's has none.
    """

    MODES: ClassVar[dict[str, Mode]] = {
        "vanilla": cross_entropy,
        "lsgan": least_squares,
        "wgan": Wasserstein(),
        "wgan-logistic-ns": BCE(),
        "hinge": Hinge(),
    }


class _LossOfDict(torch.nn.Module, ABC):
    """Calls a loss with what ``data_info`` names in a dict, every ``interval`` iterations."""

    def __init__(self, data_info: DataInfo, loss_name: str, interval: int = 1) -> None:
        super().__init__()
        if interval > 1 and data_info is None:
            raise ValueError(
                "interval: the iteration is read from the dict of outputs; give data_info too."
            )
        self.data_info = data_info
        self.interval = interval
        self._loss_name = loss_name

    def loss_name(self) -> str:
        """The name under which the trainer logs this loss."""
        return self._loss_name

    def options(self) -> dict[str, Any]:
        """What the module knows itself; only with ``data_info``, as in mmagic."""
        return {}

    @abstractmethod
    def loss(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of the arguments that ``data_info`` names."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """The loss, or None between intervals.

        Args:
            args: with ``data_info``: the dict of outputs, alone, here or as ``outputs_dict``.
                Without: the arguments of the loss.
        """
        if self.data_info is None:
            return self.loss(*args, **kwargs)
        outputs = args[0] if len(args) == 1 else kwargs.pop("outputs_dict", None)
        if len(args) > 1 or not isinstance(outputs, Mapping):
            raise TypeError(
                "outputs_dict: with data_info, expected the dict of outputs as the one argument, "
                f"got {len(args)} arguments, outputs_dict {describe(outputs)}."
            )
        if self.interval > 1 and outputs["iteration"] % self.interval != 0:
            return None
        named = {name: self._output(outputs, name, key) for name, key in self.data_info.items()}
        return self.loss(**kwargs, **named, **self.options())

    @staticmethod
    def _output(outputs: Mapping[str, Any], name: str, key: str) -> Any:
        if key not in outputs:
            raise KeyError(
                f"data_info: {name} is to be read from {key!r}, which is not among the outputs: "
                f"{', '.join(outputs)}."
            )
        return outputs[key]


class DiscShiftLossComps(_LossOfDict):
    """``loss_weight * E[pred^2]``, 0-d. (mmagic gives the squares, of which its trainer takes the
    mean.)"""

    def __init__(
        self,
        loss_weight: Weight = 1.0,
        data_info: DataInfo = None,
        loss_name: str = "loss_disc_shift",
    ) -> None:
        super().__init__(data_info, loss_name)
        self.loss_weight = check_weight("loss_weight", loss_weight)

    def loss(self, pred: Tensor) -> Tensor:
        return discriminator_side_loss(pred, False, "least_squares", weight=self.loss_weight)


class GradientPenaltyLossComps(_LossOfDict):
    """``loss_weight`` times :func:`gradient_penalty_loss`."""

    def __init__(
        self,
        loss_weight: Weight = 1.0,
        norm_mode: str = "pixel",
        data_info: DataInfo = None,
        loss_name: str = "loss_gp",
    ) -> None:
        super().__init__(data_info, loss_name)
        self.loss_weight = check_weight("loss_weight", loss_weight)
        self.norm_mode = norm_mode

    def options(self) -> dict[str, Any]:
        return {"norm_mode": self.norm_mode}

    def loss(self, *args: Any, **kwargs: Any) -> Tensor:
        return gradient_penalty_loss(*args, **kwargs, loss_weight=self.loss_weight)


class R1GradientPenaltyComps(_LossOfDict):
    """``loss_weight`` times :func:`r1_gradient_penalty_loss`, every ``interval`` iterations; None
    in between. The interval is not multiplied in."""

    def __init__(
        self,
        loss_weight: Weight = 1.0,
        norm_mode: str = "pixel",
        interval: int = 1,
        data_info: DataInfo = None,
        use_apex_amp: bool = False,
        loss_name: str = "loss_r1_gp",
    ) -> None:
        super().__init__(data_info, loss_name, interval)
        self.loss_weight = check_weight("loss_weight", loss_weight)
        self.norm_mode = norm_mode
        self.use_apex_amp = use_apex_amp

    def options(self) -> dict[str, Any]:
        return {"norm_mode": self.norm_mode, "use_apex_amp": self.use_apex_amp}

    def loss(self, *args: Any, **kwargs: Any) -> Tensor:
        return r1_gradient_penalty_loss(*args, **kwargs, loss_weight=self.loss_weight)


class GeneratorPathRegularizerComps(_LossOfDict):
    """``loss_weight`` times :func:`gen_path_regularizer`, every ``interval`` iterations; None in
    between. The moving average is the 0-d buffer ``mean_path_length``.
    """

    mean_path_length: Tensor

    def __init__(
        self,
        loss_weight: Weight = 1.0,
        pl_batch_shrink: int = 1,
        decay: float = 0.01,
        pl_batch_size: int | None = None,
        sync_mean_buffer: bool = False,
        interval: int = 1,
        data_info: DataInfo = None,
        use_apex_amp: bool = False,
        loss_name: str = "loss_path_regular",
    ) -> None:
        super().__init__(data_info, loss_name, interval)
        self.loss_weight = check_weight("loss_weight", loss_weight)
        self.pl_batch_shrink = pl_batch_shrink
        self.decay = decay
        self.pl_batch_size = pl_batch_size
        self.sync_mean_buffer = sync_mean_buffer
        self.use_apex_amp = use_apex_amp
        self.register_buffer("mean_path_length", torch.tensor(0.0))

    def options(self) -> dict[str, Any]:
        return {
            "mean_path_length": self.mean_path_length,
            "pl_batch_shrink": self.pl_batch_shrink,
            "decay": self.decay,
            "pl_batch_size": self.pl_batch_size,
            "sync_mean_buffer": self.sync_mean_buffer,
            "use_apex_amp": self.use_apex_amp,
        }

    def loss(self, *args: Any, **kwargs: Any) -> Tensor:
        penalty, self.mean_path_length, _ = gen_path_regularizer(*args, **kwargs)
        return scaled(self.loss_weight, penalty)
