"""EnCodec, whose discriminators see spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ganloss_fast.balancing.backward import balanced_backward
from ganloss_fast.balancing.rules import GradientShares
from ganloss_fast.bench.steps.audio import Maps
from ganloss_fast.bench.steps.training import Form, Training, forms, gradients, moved
from ganloss_fast.compat import audiocraft, encodec
from ganloss_fast.freezing import frozen
from ganloss_fast.joint_forward import forward_together
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss
from ganloss_fast.steps import discriminator_backward

FRAMES = (256, 128, 64)  # samples of a frame, of each resolution


def _spectrum(audio: Tensor, frame: int) -> Tensor:
    """[B, 1, T] as complex numbers [B, frequencies, frames]."""
    window = torch.hann_window(frame, device=audio.device)
    found: Tensor = torch.stft(
        audio.squeeze(1), frame, frame // 4, window=window, return_complex=True
    )
    return found


def spectral_distance(fake: Tensor, real: Tensor) -> Tensor:
    """Stands for the distance of mel spectrograms at several resolutions."""
    distance = torch.zeros((), device=real.device)
    for frame in FRAMES:
        of_fake, of_real = (_spectrum(x, frame).abs().clamp(min=1e-5) for x in (fake, real))
        distance = distance + F.l1_loss(of_fake.log10(), of_real.log10())
    return distance


def _weight_normed(network: nn.Module) -> nn.Module:
    for part in list(network.modules()):
        if isinstance(part, (nn.Conv1d, nn.Conv2d)):
            weight_norm(part)
    return network


WEIGHTS = {"adv": 4.0, "feat": 4.0, "l1": 0.1, "msspec": 2.0}
DECAY = 0.999  # of the balancer's averages


class _ComplexResolution(nn.Module):
    """Sees real and imaginary parts of one resolution; the logits are no feature."""

    def __init__(self, frame: int, width: int) -> None:
        super().__init__()
        self.frame = frame
        self.layers = nn.ModuleList([nn.Conv2d(2, width, (3, 9), padding=(1, 4))])
        for dilation in (1, 2, 4):
            layer = nn.Conv2d(
                width, width, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1)
            )
            self.layers.append(layer)
        self.layers.append(nn.Conv2d(width, width, (3, 3), padding=(1, 1)))
        self.last = nn.Conv2d(width, 1, (3, 3), padding=(1, 1))

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = torch.view_as_real(_spectrum(audio, self.frame)).permute(0, 3, 2, 1)
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            maps.append(x)
        return self.last(x), maps


class _ComplexResolutions(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_ComplexResolution(frame, width) for frame in FRAMES)

    def forward(self, audio: Tensor) -> tuple[list[Tensor], Maps]:
        found = [part(audio) for part in self.parts]
        return [logits for logits, _ in found], [maps for _, maps in found]


class _Codec(nn.Module):
    """An eighth of the samples in codes of several stages, of which a step uses some at random;
    the codes rest. Gives the reconstruction, and the loss of commitment."""

    codes: Tensor

    def __init__(self, width: int, stages: int = 4, code: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(1, width, 7, padding=3),
            nn.ELU(),
            nn.Conv1d(width, 2 * width, 8, 4, 2),
            nn.ELU(),
            nn.Conv1d(2 * width, code, 4, 2, 1),
        )
        self.register_buffer("codes", torch.randn(stages, 64, code))
        self.decoder = nn.Sequential(
            nn.ConvTranspose1d(code, 2 * width, 4, 2, 1),
            nn.ELU(),
            nn.ConvTranspose1d(2 * width, width, 8, 4, 2),
            nn.ELU(),
            nn.Conv1d(width, 1, 7, padding=3),
        )

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        x = self.encoder(audio)
        left, commitment = x.movedim(1, -1), torch.zeros((), device=audio.device)
        used = int(torch.randint(1, len(self.codes) + 1, (1,)))
        for codes in self.codes[:used]:
            nearest = codes[torch.cdist(left.detach(), codes.expand(len(left), -1, -1)).argmin(-1)]
            commitment = commitment + F.mse_loss(left, nearest)
            left = left - nearest
        quantized = x - left.movedim(-1, 1).detach()
        return self.decoder(x + (quantized - x).detach()), commitment / used


def _relative_matching(fakes: Sequence[Tensor], reals: Sequence[Tensor]) -> Tensor:
    """Of one discriminator, against the size of its features."""
    parts = [F.l1_loss(fake, real) / real.abs().mean() for fake, real in zip(fakes, reals)]
    return torch.stack(parts).mean()


def _written_balance(losses: Mapping[str, Tensor], fake: Tensor) -> None:
    """That of a first step, whose averages are the norms of this batch."""
    gradients = {}
    for name, loss in losses.items():
        (gradients[name],) = torch.autograd.grad(loss, [fake], retain_graph=True)
    balanced = torch.zeros_like(fake)
    for name, gradient in gradients.items():
        norm = float(gradient.norm(dim=(1, 2)).mean())
        balanced += gradient * (WEIGHTS[name] / sum(WEIGHTS.values()) / (1e-12 + norm))
    fake.backward(balanced)


def encodec_step(device: torch.device, samples: int = 4096, width: int = 16) -> dict[str, Form]:
    """AudioCraft's solver with EnCodec's losses: the discriminators first, then every loss back to
    the reconstruction, balanced there. Discriminators rest in the generator's part."""

    def distances(fake: Tensor, audio: Tensor) -> dict[str, Tensor]:
        return {"l1": F.l1_loss(fake, audio), "msspec": spectral_distance(fake, audio)}

    def written(t: Training) -> Sequence[Tensor]:
        audio = t.batch["audio"]
        fake, commitment = t.generator(audio)
        of_fakes, _ = t.discriminator(fake.detach())
        of_reals, _ = t.discriminator(audio)
        loss = torch.zeros((), device=audio.device)
        for of_fake, of_real in zip(of_fakes, of_reals):
            zero = torch.zeros_like(of_fake)
            loss = loss - torch.min(-of_fake - 1, zero).mean() - torch.min(of_real - 1, zero).mean()
        t.of_discriminator.zero_grad()
        (loss / len(of_fakes)).backward()
        found = moved(t.of_discriminator, t.discriminator)
        t.discriminator.requires_grad_(False)
        of_fakes, fakes = t.discriminator(fake)
        _, reals = t.discriminator(audio)
        t.discriminator.requires_grad_(True)
        losses = {
            "adv": -torch.stack([of_fake.mean() for of_fake in of_fakes]).mean(),
            "feat": torch.stack([_relative_matching(f, r) for f, r in zip(fakes, reals)]).mean(),
            **distances(fake, audio),
        }
        t.of_generator.zero_grad()
        commitment.backward(retain_graph=True)
        _written_balance(losses, fake)
        return found, moved(t.of_generator, t.generator)

    def drop_in(t: Training) -> Sequence[Tensor]:
        audio = t.batch["audio"]
        fake, commitment = t.generator(audio)
        adversarial = audiocraft.AdversarialLoss(
            t.discriminator,
            t.of_discriminator,
            audiocraft.get_adv_criterion("hinge"),
            audiocraft.get_real_criterion("hinge"),
            audiocraft.get_fake_criterion("hinge"),
            _relative_matching,
        )
        adversarial.train_adv(fake, audio)
        found = gradients(t.discriminator)
        adv, feat = adversarial(fake, audio)
        t.of_generator.zero_grad()
        commitment.backward(retain_graph=True)
        balancer = encodec.Balancer(WEIGHTS, ema_decay=DECAY)
        balancer.backward({"adv": adv, "feat": feat, **distances(fake, audio)}, fake)
        return found, moved(t.of_generator, t.generator)

    def with_helpers(t: Training) -> Sequence[Tensor]:
        audio = t.batch["audio"]
        fake, commitment = t.generator(audio)
        (reals, _), (fakes, _) = forward_together(t.discriminator, audio, fake.detach())
        loss = discriminator_loss(reals, fakes, "hinge", output_reduction="mean")
        t.of_discriminator.zero_grad()
        discriminator_backward(loss, t.discriminator)
        found = moved(t.of_discriminator, t.discriminator)
        with frozen(t.discriminator):
            of_fakes, fakes = t.discriminator(fake)
            _, reals = t.discriminator(audio)
        matching = torch.stack([_relative_matching(f, r) for f, r in zip(fakes, reals)]).mean()
        adversarial = generator_loss(of_fakes, "hinge", output_reduction="mean")
        losses = {"adv": adversarial, "feat": matching, **distances(fake, audio)}
        t.of_generator.zero_grad()
        balanced_backward(
            losses,
            fake,
            weights=WEIGHTS,
            rule=GradientShares(decay=DECAY),
            extra_loss=commitment,
        )
        return found, moved(t.of_generator, t.generator)

    discriminators = _weight_normed(_ComplexResolutions(width))
    batch = {"audio": torch.randn(2, 1, samples)}
    return forms(
        Training(_Codec(width), discriminators, batch), device, written, drop_in, with_helpers
    )
