"""EnCodec (facebookresearch/encodec): ``balancer.py``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ganloss_fast.balancing.backward import Balance, balanced_backward
from ganloss_fast.balancing.rules import GradientShares, NormAverages
from ganloss_fast.compat._processes import world


class Balancer:
    """Shares of a total gradient norm at the output of a model.

    .. math:: g = \\sum_k \\frac{w_k}{\\sum_j w_j} \\cdot
        \\frac{total\\ norm}{\\epsilon + average\\|g_k\\|} \\, g_k

    The averages stay on the device, where the original copies a norm to the host for each loss.
    With several processes, averages are averaged over them. A step whose norms are not finite
    leaves them as they were; the original's are lost with it.

    Args:
        weights: a number for each loss.
        rescale_grads: False for a weighted sum of the losses.
        total_norm: of all gradients together.
        ema_decay: of the averages.
        per_batch_item: take the mean over the norms of the samples, not the norm of all.
        epsilon: added to the averages.
        monitor: whether there are :attr:`metrics`.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        rescale_grads: bool = True,
        total_norm: float = 1.0,
        ema_decay: float = 0.999,
        per_batch_item: bool = True,
        epsilon: float = 1e-12,
        monitor: bool = False,
    ) -> None:
        self.weights = weights
        self.monitor = monitor
        self.rule = GradientShares(
            total_norm=total_norm,
            decay=ema_decay,
            per_sample=per_batch_item,
            epsilon=epsilon,
            rescale=rescale_grads,
        )
        self._names: tuple[str, ...] = ()
        self._averages: NormAverages | None = None
        self._shown: Tensor | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """``ratio_<loss>``: its part of the sum of all norms. Waits for the device when read."""
        if not self.monitor or self._shown is None:
            return {}
        ratios = (self._shown / self._shown.sum()).tolist()
        return {f"ratio_{name}": ratio for name, ratio in zip(self._names, ratios)}

    def backward(self, losses: Mapping[str, Tensor], input: Tensor) -> None:
        """The backward of the balanced losses, through ``input``, of which all are made.

        A loss may join later, as an adversarial one does; none may leave.
        """
        self._balanced(losses, input)

    def _balanced(self, losses: Mapping[str, Tensor], input: Tensor) -> Balance:
        missing = [name for name in self._names if name not in losses]
        if missing:
            raise ValueError(
                f"losses: {', '.join(missing)} took part in the steps before and is missing. A "
                "loss may join, but not leave: its share of the norm would be nobody's."
            )
        joining = tuple(name for name in losses if name not in self._names)
        names = (*self._names, *joining)
        ordered = {name: losses[name] for name in names}
        balance = balanced_backward(
            ordered,
            input,
            weights=self.weights,
            rule=self.rule,
            averages=self._averages and self._averages.extended(len(joining)),
            process_group=world(),
        )
        self._names, self._averages = names, balance.averages
        self._shown = balance.averages.means() if balance.averages else None
        return balance
