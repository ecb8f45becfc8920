"""The losses of StyleGAN2-ADA and StyleGAN3: phases, gradients, statistics, draws."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from image_codebases import assert_near, images, logits, seeded
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ganloss_fast.compat import stylegan2_ada, stylegan3

PHASES = ("Gmain", "Greg", "Gboth", "Dmain", "Dreg", "Dboth")


def softplus(x):
    return F.softplus(x, threshold=40)


class Mapping(nn.Module):
    """[B, 4] to [B, 3 layers, 5]; notes which call keeps its moving averages still."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 5)
        self.calls = []

    def forward(self, z, c, **options):
        self.calls.append(options)
        return self.layer(z).tanh().unsqueeze(1).repeat(1, 3, 1)


class Synthesis(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 3 * 8 * 8) for _ in range(3))
        self.shift = nn.Parameter(torch.zeros(3, 1, 1))  # no part of a gradient to the latents

    def forward(self, ws, **options):
        x = sum((k + 1) * layer(ws[:, k]) for k, layer in enumerate(self.layers))
        return (x.tanh() * ws.square().mean()).view(-1, 3, 8, 8) + self.shift


class G3(nn.Module):
    def __init__(self):
        super().__init__()
        self.mapping, self.synthesis = Mapping(), Synthesis()


class Critic(nn.Module):
    """Images to [B, 1]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(6 * 16, 1)
        )

    def forward(self, x, c, **options):
        return self.layers(x)


class Plain:
    """The phases of both codebases, written out with one loss for each sample."""

    def __init__(self, G, D, *, r1_gamma, pl_weight, mixing, keeps, sigma=0.0, augment=None):
        self.G, self.D, self.r1_gamma, self.pl_weight = G, D, r1_gamma, pl_weight
        self.mixing, self.keeps, self.sigma, self.augment = mixing, keeps, sigma, augment
        self.pl_mean = torch.zeros((), dtype=torch.float64)
        self.stats = {}

    def generate(self, z):
        ws = self.G.mapping(z, None)
        if self.mixing > 0:
            cutoff = torch.empty([], dtype=torch.int64).random_(1, ws.shape[1]).item()
            if torch.rand([]) >= self.mixing:
                cutoff = ws.shape[1]
            others = self.G.mapping(torch.randn_like(z), None)
            ws = torch.cat([ws[:, :cutoff], others[:, cutoff:]], 1)
        return self.G.synthesis(ws), ws

    def judge(self, x, side):
        radius = math.floor(self.sigma * 3)
        if radius > 0:
            t = torch.arange(-radius, radius + 1, dtype=torch.float64)
            f = torch.exp2(-((t / self.sigma) ** 2)).to(x.dtype)
            kernel = torch.outer(f, f) / f.sum() ** 2
            x = F.conv2d(x, kernel.repeat(3, 1, 1, 1), padding=radius, groups=3)
        scores = self.D(self.augment(x) if self.augment else x, None)
        self.stats[f"Loss/scores/{side}"] = scores
        self.stats[f"Loss/signs/{side}"] = scores.sign()
        return scores

    def __call__(self, phase, real, z, gain):
        self.stats = {}
        main, reg = phase[1:] in ("main", "both"), phase[1:] in ("reg", "both")
        if phase[0] == "G" and main:
            loss = softplus(-self.judge(self.generate(z)[0], "fake"))
            self.stats["Loss/G/loss"] = loss
            (loss.mean() * gain).backward()
        if phase[0] == "G" and reg and self.pl_weight != 0:
            x, ws = self.generate(z[: len(z) // 2])
            noise = torch.randn_like(x) / math.sqrt(64)
            (g,) = torch.autograd.grad((x * noise).sum(), ws, create_graph=True)
            lengths = g.square().sum(2).mean(1).sqrt()
            mean = self.pl_mean.lerp(lengths.mean(), 0.01)
            self.pl_mean = mean.detach()
            penalty = (lengths - mean).square()
            self.stats["Loss/pl_penalty"] = penalty
            self.stats["Loss/G/reg"] = penalty * self.pl_weight
            loss = penalty * self.pl_weight
            if self.keeps:
                loss = loss + x[:, 0, 0, 0] * 0
            (loss.mean() * gain).backward()
        if phase[0] == "G":
            return
        fake_loss = torch.zeros(())
        if main:
            fake_loss = softplus(self.judge(self.generate(z)[0], "fake"))
            (fake_loss.mean() * gain).backward()
        reg = reg and self.r1_gamma != 0
        if not main and not reg:
            return
        x = real.detach().requires_grad_(reg)
        scores = self.judge(x, "real")
        total = (scores * 0).mean() if self.keeps else 0
        if main:
            total = total + softplus(-scores).mean()
            self.stats["Loss/D/loss"] = fake_loss + softplus(-scores)
        if reg:
            (g,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
            r1 = g.square().sum([1, 2, 3])
            self.stats["Loss/r1_penalty"] = r1
            self.stats["Loss/D/reg"] = r1 * (self.r1_gamma / 2)
            total = total + (r1 * (self.r1_gamma / 2)).mean()
        (total * gain).backward()


def flip(x):
    return x.flip(3) * 1.1


CODEBASES = ("ada", "3")


def make(codebase, r1_gamma=10, pl_weight=2, mixing=0.9, report=None, augment=None, **blur):
    """The networks, the loss, its phase as a function, and the plain form on copies of them."""
    G, D = seeded(G3), seeded(Critic, 2)
    G2, D2 = seeded(G3), seeded(Critic, 2)
    options = {"r1_gamma": r1_gamma, "pl_weight": pl_weight, "style_mixing_prob": mixing}
    options |= {"augment_pipe": augment, "report": report}
    plain_options = {"r1_gamma": r1_gamma, "pl_weight": pl_weight, "mixing": mixing}
    plain_options |= {"augment": augment, "keeps": codebase == "ada"}
    if codebase == "ada":
        loss = stylegan2_ada.StyleGAN2Loss("cpu", G.mapping, G.synthesis, D, **options)

        def call(phase, real, z, gain):
            loss.accumulate_gradients(phase, real, None, z, NO_LABELS, sync=True, gain=gain)
    else:
        loss = stylegan3.StyleGAN2Loss("cpu", G, D, **options, **blur)

        def call(phase, real, z, gain):
            loss.accumulate_gradients(phase, real, None, z, NO_LABELS, gain=gain, cur_nimg=2000)

    loss.pl_mean = loss.pl_mean.double()
    return (G, D, loss, call), (G2, D2, Plain(G2, D2, **plain_options))


NO_LABELS = torch.zeros(8, 0)


def assert_same_phase(ours, plain, phase, gain=4.0, seed=0):
    """The same gradients, None where there is none, after the same draws."""
    for networks, call in ((ours[:2], ours[3]), (plain[:2], plain[2])):
        for net, player in zip(networks, "GD", strict=True):
            net.requires_grad_(phase.startswith(player))  # as the trainers do
            net.zero_grad()
        torch.manual_seed(seed)
        call(phase, images(batch=8), logits(8, 4).detach(), gain)
    for net, plain_net in zip(ours[:2], plain[:2], strict=True):
        for p, q in zip(net.parameters(), plain_net.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            if q.grad is not None:
                assert_near(p.grad, q.grad, 1e-12)


@pytest.mark.parametrize("codebase", CODEBASES)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("reports", [False, True])
def test_a_phase_adds_the_gradients_of_the_formulas(codebase, phase, reports):
    stats = {}
    ours, plain = make(codebase, report=stats.__setitem__ if reports else None, augment=flip)
    for seed in range(3):  # with and without style mixing
        assert_same_phase(ours, plain, phase, seed=seed)
    if "eg" in phase and phase[0] == "G":
        assert_near(ours[2].pl_mean, plain[2].pl_mean, 1e-12)
    if reports:
        assert stats.keys() == plain[2].stats.keys()
        for name, values in plain[2].stats.items():
            assert_near(stats[name], values, 1e-12)
            assert not stats[name].requires_grad


@pytest.mark.parametrize("codebase", CODEBASES)
@pytest.mark.parametrize("phase", PHASES)
def test_weights_of_zero_leave_regularisations_out(codebase, phase):
    assert_same_phase(*make(codebase, r1_gamma=0, pl_weight=0, mixing=0), phase)


def test_images_are_blurred_while_it_fades():
    """sigma 4 (1 - 2000 / 4000) = 2 pixels at 2000 images."""
    ours, plain = make("3", blur_init_sigma=4, blur_fade_kimg=4)
    plain[2].sigma = 2.0
    for phase in PHASES:
        assert_same_phase(ours, plain, phase)
    faded, plain = make("3", blur_init_sigma=4, blur_fade_kimg=2)
    assert_same_phase(faded, plain, "Dmain")


def test_moving_averages_of_networks_are_updated_by_main_steps_of_the_discriminator_only():
    (G, _, _, call), _ = make("3", mixing=0)
    for phase in PHASES:
        G.mapping.calls.clear()
        call(phase, images(batch=8), logits(8, 4).detach(), 1.0)
        updates = {options["update_emas"] for options in G.mapping.calls}
        assert updates <= {phase in ("Dmain", "Dboth")}


def test_mixed_styles_leave_the_average_latent_alone():
    (G, _, loss, _), _ = make("ada", mixing=1.0)
    loss.run_G(logits(2, 4), None, sync=True)
    assert G.mapping.calls == [{}, {"skip_w_avg_update": True}]


class Distributed(nn.parallel.DistributedDataParallel):
    """Counts the calls that leave their gradients to a later one."""

    def __init__(self, net):
        nn.Module.__init__(self)
        self.net, self.kept_back = net, 0

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)

    def no_sync(self):
        self.kept_back += 1
        return contextlib.nullcontext()


@pytest.mark.parametrize(
    ("phase", "of_generator", "of_critic"),
    [("Gmain", 0, 1), ("Gboth", 1, 1), ("Greg", 0, 0), ("Dmain", 1, 1), ("Dboth", 1, 1)],
)
def test_only_the_last_backward_of_a_network_adds_up_over_processes(phase, of_generator, of_critic):
    G, D = seeded(G3), Distributed(seeded(Critic))
    mapping, synthesis = Distributed(G.mapping), Distributed(G.synthesis)
    loss = stylegan2_ada.StyleGAN2Loss("cpu", mapping, synthesis, D)
    loss.accumulate_gradients(
        phase, images(batch=8), None, logits(8, 4), NO_LABELS, sync=True, gain=1.0
    )
    assert [net.kept_back for net in (mapping, synthesis, D)] == [
        of_generator,
        of_generator,
        of_critic,
    ]


@pytest.mark.parametrize("codebase", CODEBASES)
def test_the_defaults_are_the_codebases(codebase):
    if codebase == "ada":
        loss = stylegan2_ada.StyleGAN2Loss("cpu", None, None, None)
        assert (loss.style_mixing_prob, loss.pl_weight) == (0.9, 2)
    else:
        loss = stylegan3.StyleGAN2Loss("cpu", None, None)
        assert (loss.style_mixing_prob, loss.pl_weight) == (0, 0)
    assert (loss.r1_gamma, loss.pl_batch_shrink, loss.pl_decay) == (10, 2, 0.01)
    assert loss.pl_mean.shape == ()


@pytest.mark.parametrize("codebase", CODEBASES)
def test_unknown_phases_list_the_known_ones(codebase):
    ours, _ = make(codebase)
    with pytest.raises(ValueError, match="phase: expected one of Gmain, Greg, Gboth, Dmain"):
        ours[3]("Gpl", images(), logits(8, 4), 1.0)


@pytest.mark.parametrize("codebase", CODEBASES)
def test_fifty_steps_train_alike(codebase):
    """Lazy regularisation: path length every 4 steps, R1 every 16."""
    parameters = []
    ours, plain = make(codebase)
    for G, D, call in ((*ours[:2], ours[3]), (*plain[:2], plain[2])):
        optimizers = {
            player: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
            for player, net in (("G", G), ("D", D))
        }
        torch.manual_seed(0)
        for k in range(50):
            phases = ["Gmain", *["Greg"] * (k % 4 == 0), "Dmain", *["Dreg"] * (k % 16 == 0)]
            for phase in phases:
                for net, player in ((G, "G"), (D, "D")):
                    net.requires_grad_(phase[0] == player)
                gain = {"Greg": 4.0, "Dreg": 1.6}.get(phase, 1.0)
                optimizers[phase[0]].zero_grad(set_to_none=True)
                z = torch.randn(8, 4, dtype=torch.float64)
                call(phase, images(k, batch=8), z, gain)
                optimizers[phase[0]].step()
        parameters.append([*G.parameters(), *D.parameters()])
    for p, q in zip(*parameters, strict=True):
        assert_near(p, q, 1e-10)


# ---- both steps of the discriminator in one backward --------------------------------------------


class Calls(TorchDispatchMode):
    """How many convolutions ran, and the halves of their backwards."""

    def __init__(self):
        super().__init__()
        self.convolutions = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        packet = function.overloadpacket
        if packet is torch.ops.aten.convolution:
            self.convolutions += 1
        elif packet is torch.ops.aten.convolution_backward:
            self.convolutions += sum(args[-1][:2])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("codebase", CODEBASES)
@pytest.mark.parametrize("reports", [False, True])
def test_a_phase_of_both_steps_computes_each_weight_gradient_once(codebase, reports):
    torch.manual_seed(0)
    critic = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.LazyLinear(1),
    ).double()
    real = images(batch=4)
    critic(real)
    report = (lambda name, values: None) if reports else None
    module = stylegan2_ada if codebase == "ada" else stylegan3
    networks = ["cpu", None, None] if codebase == "ada" else ["cpu", None]
    loss = module.StyleGAN2Loss(*networks, lambda *args, **kwargs: None, r1_gamma=2, report=report)
    loss.run_discriminator = lambda x, *args: critic(x)
    parameters = list(critic.parameters())

    def ours(*steps):
        critic.zero_grad()
        loss.real_step(real, None, 3.0, True, set(steps), logits(4, 1).detach(), False)
        return [p.grad.clone() for p in parameters]

    def plain():
        critic.zero_grad()
        x = real.detach().requires_grad_()
        found = critic(x)
        (gradient,) = torch.autograd.grad(found.sum(), x, create_graph=True)
        r1 = gradient.square().sum(dim=(1, 2, 3)).mean()
        (3.0 * (F.softplus(-found).mean() + r1)).backward()
        return [p.grad.clone() for p in parameters]

    ours("Dmain", "Dreg")  # the first use of a critic looks at its numbers
    with Calls() as shared:
        found = ours("Dmain", "Dreg")
    with Calls() as written:
        wanted = plain()
    for p, q in zip(found, wanted, strict=True):
        assert_near(p, q, 1e-10)
    assert shared.convolutions < written.convolutions
