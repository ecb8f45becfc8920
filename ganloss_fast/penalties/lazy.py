"""Lazy regularisation: a penalty on every k-th step only."""

from __future__ import annotations

from dataclasses import dataclass

from ganloss_fast.checks import check_integer, check_number, describe


@dataclass(frozen=True)
class LazyRegularizer:
    """Applies a penalty every ``every`` steps, scaled so that its average effect stays
    (StyleGAN2; Karras et al., 2020).

    ::

        lazy = LazyRegularizer(every=16)
        optimizer = torch.optim.Adam(critic.parameters(), **lazy.adam(lr=2e-3, betas=(0.0, 0.99)))
        for step in range(steps):
            ...
            if lazy.is_due(step):
                penalty = lazy.scale * r1_penalty(critic, real, R1(gamma=gamma))

    Args:
        every: the interval; StyleGAN2 takes 16 for the discriminator and 4 for the generator.
    """

    every: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", check_integer("every", self.every))

    @property
    def scale(self) -> float:
        """The factor of the penalty on the steps on which it is due."""
        return float(self.every)

    def is_due(self, step: int) -> bool:
        """Whether step number ``step``, counted from 0, has the penalty."""
        return step % self.every == 0

    def adam(self, lr: float, betas: tuple[float, float]) -> dict[str, object]:
        """Learning rate and betas of Adam where main loss and penalty step separately.

        The optimizer then makes ``every + 1`` steps where it made ``every``; with
        ``c = every / (every + 1)`` the rate becomes ``c * lr`` and the betas ``beta ** c``, so
        that it moves and forgets as fast as before. Not for steps that add the penalty to the
        main loss.
        """
        c = self.every / (self.every + 1)
        if not isinstance(betas, (list, tuple)) or len(betas) != 2:
            raise TypeError(f"betas: expected two numbers, got {describe(betas)}.")
        first, second = betas
        return {
            "lr": check_number("lr", lr) * c,
            "betas": (check_number("betas[0]", first) ** c, check_number("betas[1]", second) ** c),
        }
