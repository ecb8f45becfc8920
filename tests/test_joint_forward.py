"""forward_together: one forward for both sides, and no other numbers than two would give."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import ganloss_fast as gf


class Maps(nn.Module):
    """A list of maps and a dict, with something that is no tensor."""

    def __init__(self):
        super().__init__()
        self.first, self.last = weight_norm(nn.Conv1d(1, 4, 3)), nn.Conv1d(4, 1, 3)
        self.forwards = 0

    def forward(self, x):
        self.forwards += 1
        maps = self.first(x).tanh()
        return [maps, {"logits": self.last(maps), "rate": 24000}]


def samples(dtype=torch.float64, counts=(3, 2)):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(n, 1, 9, generator=generator, dtype=torch.float64).to(dtype) for n in counts
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_and_gradients_are_those_of_two_forwards(dtype):
    torch.manual_seed(0)
    critic = Maps().to(dtype)
    real, fake = samples(dtype)
    found = []
    for both in (gf.forward_together(critic, real, fake), (critic(real), critic(fake))):
        (r_maps, r), (f_maps, f) = both
        assert r["rate"] == f["rate"] == 24000
        loss = gf.discriminator_loss(r["logits"], f["logits"], "least_squares")
        loss = loss + r_maps.square().mean() + f_maps.abs().sum()
        found.append([loss, r_maps, f_maps, *torch.autograd.grad(loss, list(critic.parameters()))])
    torch.testing.assert_close(*found)


def test_calls_one_two_and_four_ask():
    critic = Maps().double()
    forwards = []
    for _ in range(8):
        before = critic.forwards
        gf.forward_together(critic, *samples())
        forwards.append(critic.forwards - before)
    assert forwards == [4, 4, 1, 4, 1, 1, 1, 4]


def test_a_head_at_zero_is_asked_again():
    critic = nn.Sequential(nn.Conv1d(1, 2, 3), Faint()).double()
    critic[1].gain.data.zero_()
    for _ in range(3):
        gf.forward_together(critic, *samples())
    critic[1].gain.data.fill_(1.0)
    with pytest.raises(ValueError, match="judged otherwise"):
        gf.forward_together(critic, *samples())


def test_asking_changes_no_random_numbers():
    critic = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Dropout(0.5)).double()
    found = []
    for _ in range(3):  # asked, asked, not asked
        torch.manual_seed(0)
        found.append((gf.forward_together(critic, *samples()), torch.rand(())))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])


class Faint(nn.Module):
    """A mean over the batch that no comparison of values can tell from rounding."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.gain * (x.flatten(1).sum(1) + 1e-12 * x.mean())


class Running(nn.Module):
    """Samples that see those before them alone."""

    def forward(self, x):
        return x.flatten(1).sum(1).cumsum(0)


class Deviation(nn.Module):
    """Statistics over the batch, as StyleGAN2 appends them."""

    def forward(self, x):
        return x.mean(dim=(1, 2)) + x.std(0).mean()


class Detached(nn.Module):
    """Statistics that no gradient shows."""

    def forward(self, x):
        return x.flatten(1).sum(1) - x.detach().mean()


@pytest.mark.parametrize(
    ("critic", "message"),
    [
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2)), "it normalises by its batch"),
        (spectral_norm(nn.Conv1d(1, 2, 3)), "it has a spectral norm in training mode"),
        (Deviation(), "real samples are judged otherwise beside fake ones"),
        (Faint(), "real samples are judged otherwise beside fake ones"),
        (Running(), "real samples are judged otherwise beside fake ones"),
        (Detached(), "real samples are judged otherwise beside fake ones"),
    ],
    ids=["batch norm", "spectral norm", "batch statistics", "faint", "running", "detached"],
)
def test_samples_that_meet_are_refused(critic, message):
    with pytest.raises(ValueError, match=f"discriminator: {message}"):
        gf.forward_together(critic.double(), *samples())


@pytest.mark.parametrize(
    "critic",
    [nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2)), spectral_norm(nn.Conv1d(1, 2, 3))],
)
def test_in_evaluation_nothing_meets(critic):
    critic = critic.double().eval()
    real, fake = samples()
    found = gf.forward_together(critic, real, fake)
    torch.testing.assert_close(found, (critic(real), critic(fake)))


class FunctionalDropout(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5)


class OfPython(nn.Module):
    def forward(self, x):
        return x * random.random()


@pytest.mark.parametrize("part", [nn.Dropout(0.5), FunctionalDropout(), OfPython()])
def test_random_outputs_are_not_compared(part):
    critic = nn.Sequential(nn.Conv1d(1, 2, 3), part).double()
    real, fake = samples()
    of_real, of_fake = gf.forward_together(critic, real, fake)
    assert (len(of_real), len(of_fake)) == (3, 2)


def test_rounding_under_autocast_is_no_difference():
    """Logits in float32 behind layers in bfloat16."""

    class Coarse(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(64, 256), nn.Linear(256, 1)

        def forward(self, x):  # what other kernels do with a batch of another size
            shift = 2.0**-9 * (len(x) - 3)
            return self.last(self.first(x).relu() * (1 + shift)).float()

    critic, x = Coarse(), torch.randn(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        gf.forward_together(critic, x[:3], x[3:])
    with pytest.raises(ValueError, match="judged otherwise"):
        gf.forward_together(Coarse(), x[:3], x[3:])


def test_wrong_samples_are_explained():
    critic = nn.Conv1d(1, 1, 3).double()
    real, fake = samples()
    with pytest.raises(ValueError, match="fake: expected samples like real"):
        gf.forward_together(critic, real, fake[..., :5])
    with pytest.raises(ValueError, match="fake: expected samples like real"):
        gf.forward_together(critic, real, fake.float())
    with pytest.raises(TypeError, match=r"discriminator: expected a torch\.nn\.Module"):
        gf.forward_together(lambda x: x, real, fake)
    with pytest.raises(TypeError, match="fake: expected float16, bfloat16"):
        gf.forward_together(critic, real.long(), fake.long())
    with pytest.raises(TypeError, match="real: expected a tensor"):
        gf.forward_together(critic, [real], fake)
    with pytest.raises(ValueError, match="expected outputs with 5 samples in front"):
        gf.forward_together(nn.Sequential(critic, nn.Flatten(0)), real, fake)


def test_it_compiles_in_one_graph(fresh_compiler):
    critic = nn.Sequential(nn.Conv1d(1, 2, 3), nn.LeakyReLU(0.2)).double()
    real, fake = samples()

    def both(real, fake):
        return gf.forward_together(critic, real, fake)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(real, fake), both(real, fake))


def test_a_capture_asks_nothing(monkeypatch):
    """Reading a value would end the capture of a CUDA graph."""

    class OnTheGpu(torch.Tensor):
        is_cuda = True

    critic = Maps().double()
    real, fake = samples()
    for capturing, forwards in ((True, 1), (True, 1), (False, 4)):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda now=capturing: now)
        critic.forwards = 0
        gf.forward_together(critic, real.as_subclass(OnTheGpu), fake)
        assert critic.forwards == forwards
