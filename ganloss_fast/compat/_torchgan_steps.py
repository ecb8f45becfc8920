"""The training steps of torchgan's losses: ``train_ops``, which its trainer calls by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganloss_fast._torch import clamp_each_
from ganloss_fast.compat._toolkits import at_leaf
from ganloss_fast.freezing import frozen
from ganloss_fast.penalties.points import interpolate

try:
    from torchgan.losses import loss as _torchgans  # type: ignore[import-not-found]
except ImportError:
    _torchgans = None

Model = Any  # a module with torchgan's label_type, and encoding_dims where it generates


class Samples:
    """Generated samples of one step, and how the discriminator is asked about samples."""

    def __init__(
        self,
        generator: Model,
        batch_size: int,
        device: Any,
        labels: Tensor | None,
        draws_noise: bool = True,
    ) -> None:
        self.generator = generator
        self.labels_of_data = labels
        self.labels = labels
        if draws_noise:
            self.noise = torch.randn(batch_size, generator.encoding_dims, device=device)
        if generator.label_type == "generated":
            self.labels = torch.randint(0, generator.num_classes, (batch_size,), device=device)

    def fake(self) -> Tensor:
        wants_labels = self.generator.label_type != "none"
        sample: Tensor = self.generator(self.noise, *([self.labels] if wants_labels else []))
        return sample

    def judged(self, discriminator: Model, samples: Tensor, **options: Any) -> Any:
        wants_labels = discriminator.label_type != "none"
        return discriminator(samples, *([self.labels] if wants_labels else []), **options)

    def judged_real(self, discriminator: Model, real: Tensor, **options: Any) -> Any:
        if discriminator.label_type == "required":
            return discriminator(real, self.labels_of_data, **options)
        return self.judged(discriminator, real, **options)


def check_labels(labels: Tensor | None, *models: Model) -> None:
    if labels is None and any(model.label_type == "required" for model in models):
        raise ValueError("labels: the model needs labels for its training, got None.")


@contextlib.contextmanager
def _logits_alone(discriminator: Model, wanted: bool) -> Iterator[None]:
    """Without the embeddings that an auto-encoding discriminator returns beside its energy."""
    if not (wanted and hasattr(discriminator, "embeddings")):
        yield
        return
    discriminator.embeddings = False
    try:
        yield
    finally:
        discriminator.embeddings = True


class Loss(torch.nn.Module):
    """What all of torchgan's losses have."""

    without_embeddings: ClassVar[bool] = False

    def __init__(
        self, reduction: str = "mean", override_train_ops: Callable[..., Any] | None = None
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.override_train_ops = override_train_ops
        self.arg_map: dict[str, str] = {}

    def set_arg_map(self, value: dict[str, str]) -> None:
        """Which variables of the trainer the arguments of ``train_ops`` are."""
        self.arg_map.update(value)


def _bases(name: str) -> tuple[type, ...]:
    """torchgan's class, where it is installed: its trainer asks for it, and passes over a loss that
    is none of it without a word."""
    return () if _torchgans is None else (getattr(_torchgans, name),)


class GeneratorLoss(Loss, *_bases("GeneratorLoss")):  # type: ignore[misc]
    """torchgan's base class of generator losses."""

    def train_ops(
        self,
        generator: Model,
        discriminator: Model,
        optimizer_generator: torch.optim.Optimizer,
        device: Any,
        batch_size: int,
        labels: Tensor | None = None,
    ) -> Any:
        """One step of the generator; returns the loss as a number, which waits for the device."""
        if self.override_train_ops is not None:
            return self.override_train_ops(
                generator, discriminator, optimizer_generator, device, batch_size, labels
            )
        self.check_step(generator, discriminator, labels)
        return self.step(
            generator,
            discriminator,
            optimizer_generator,
            lambda: self.step_loss(Samples(generator, batch_size, device, labels), discriminator),
        )

    def check_step(self, generator: Model, discriminator: Model, labels: Tensor | None) -> None:
        """Raises ValueError where the models or labels do not suit the loss."""
        check_labels(labels, generator)

    def step_loss(self, samples: Samples, discriminator: Model) -> Tensor:
        """The loss of a step."""
        loss: Tensor = self(samples.judged(discriminator, samples.fake()))
        return loss

    def step(
        self,
        generator: Model,
        discriminator: Model,
        optimizer: torch.optim.Optimizer,
        loss_of_step: Callable[[], Tensor],
    ) -> float:
        """The generator learns; the discriminator gets no gradients."""
        optimizer.zero_grad()
        alone = _logits_alone(discriminator, self.without_embeddings)
        with frozen(discriminator, keep=generator), alone:
            loss = loss_of_step()
            loss.backward()
        optimizer.step()
        return loss.item()


class DiscriminatorLoss(Loss, *_bases("DiscriminatorLoss")):  # type: ignore[misc]
    """torchgan's base class of discriminator losses."""

    hands_itself_over: ClassVar[bool] = True  # to override_train_ops, as its first argument
    clip: Sequence[float] | None = None

    def train_ops(
        self,
        generator: Model,
        discriminator: Model,
        optimizer_discriminator: torch.optim.Optimizer,
        real_inputs: Tensor,
        device: Any,
        labels: Tensor | None = None,
    ) -> Any:
        """One step of the discriminator; returns the loss as a number."""
        if self.override_train_ops is not None:
            first = (self,) if self.hands_itself_over else ()
            step = (generator, discriminator, optimizer_discriminator, real_inputs, device, labels)
            return self.override_train_ops(*first, *step)
        self.check_step(generator, discriminator, labels)
        if self.clip is not None:
            with torch.no_grad():
                clamp_each_(list(discriminator.parameters()), self.clip[0], self.clip[1])
        optimizer_discriminator.zero_grad()
        losses = self.step_losses(generator, discriminator, real_inputs, device, labels)
        losses[0].backward()
        optimizer_discriminator.step()
        return self.after_step(losses)

    def check_step(self, generator: Model, discriminator: Model, labels: Tensor | None) -> None:
        """Raises ValueError where the models or labels do not suit the loss."""
        check_labels(labels, generator, discriminator)

    def step_losses(
        self,
        generator: Model,
        discriminator: Model,
        real_inputs: Tensor,
        device: Any,
        labels: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """The loss of a step, which is walked back, and its parts, if it has any."""
        samples = Samples(generator, real_inputs.size(0), device, labels)
        with _logits_alone(discriminator, self.without_embeddings):
            dx = samples.judged_real(discriminator, real_inputs)
            with torch.no_grad():
                fake = samples.fake()
            dgz = samples.judged(discriminator, fake)
        result = self(dx, dgz)
        return result if isinstance(result, tuple) else (result,)

    def after_step(self, losses: tuple[Tensor, ...]) -> float:
        """What ``train_ops`` returns."""
        return losses[0].item()


class PenaltyLoss(Loss, *_bases("DiscriminatorLoss")):  # type: ignore[misc]
    """A gradient penalty with a step of its own."""

    around_real: ClassVar[bool] = False
    lambd: float

    def train_ops(
        self,
        generator: Model,
        discriminator: Model,
        optimizer_discriminator: torch.optim.Optimizer,
        real_inputs: Tensor,
        device: Any,
        labels: Tensor | None = None,
    ) -> Any:
        """One step of the discriminator on the penalty; returns it, without lambda, as a number."""
        if self.override_train_ops is not None:
            return self.override_train_ops(
                self, generator, discriminator, optimizer_discriminator, real_inputs, labels
            )
        if not self.around_real:
            check_labels(labels, generator, discriminator)
        optimizer_discriminator.zero_grad()
        samples, points = self._points(generator, real_inputs, device, labels)
        leaf, logits = at_leaf(points, lambda x: samples.judged(discriminator, x))
        loss = self(leaf, logits)
        (self.lambd * loss).backward()
        optimizer_discriminator.step()
        return loss.item()

    def _points(
        self, generator: Model, real: Tensor, device: Any, labels: Tensor | None
    ) -> tuple[Samples, Tensor]:
        """Where the gradient is taken. Draws what torchgan draws, in its order."""
        if self.around_real:
            alpha = torch.rand(real.shape, device=device)
            beta = torch.rand(real.shape, device=device)
            points = real + (1 - alpha) * 0.5 * real.std() * beta
            return Samples(generator, real.size(0), device, labels, draws_noise=False), points
        samples = Samples(generator, real.size(0), device, labels)
        with torch.no_grad():
            fake = samples.fake()
        return samples, interpolate(real, fake, torch.rand(1).item())
