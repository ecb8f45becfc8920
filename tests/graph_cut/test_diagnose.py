"""What diagnose() says about a critic."""

from __future__ import annotations

import pytest
import torch
from critics import SpectralResNet, dcgan
from torch import nn

import ganloss_fast as gf
from ganloss_fast import backends


def test_diagnose_says_that_all_is_cut(capsys):
    found = gf.diagnose(dcgan(), torch.randn(2, 3, 32, 32))
    assert found.stock == pytest.approx(6, abs=0.01)
    assert found.cut == pytest.approx(4, abs=0.01)
    assert found.genuine == ()
    printed = capsys.readouterr().out
    assert "6.00x" in printed
    assert found.why_not_shared == "" or not backends.HAS_NATIVE
    assert "logits_and_penalty" in printed


@pytest.mark.parametrize(
    ("layer", "operation"),
    [
        (nn.GELU(), "GeluBackwardBackward0"),
        (nn.Softplus(), "SoftplusBackwardBackward0"),
        (nn.InstanceNorm2d(4), "NativeBatchNormBackwardBackward0"),
        (nn.GroupNorm(2, 4), "NativeGroupNormBackward"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_diagnose_names_the_layer_that_keeps_the_branch(layer, operation):
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    found = gf.diagnose(critic, torch.randn(2, 3, 8, 8), quiet=True)
    assert {genuine.module for genuine in found.genuine} == {f"1 ({type(layer).__name__})"}
    assert found.why_not_shared
    if isinstance(layer, nn.GELU | nn.Softplus):
        assert {genuine.operation for genuine in found.genuine} == {operation}


def test_diagnose_names_the_modulus_of_complex_numbers():
    """Its node is that of a real absolute value, whose branch is cut."""
    layers = nn.ModuleList([nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(9, 1, 3)])

    def critic(x):
        window = torch.hann_window(16)
        spectrum = torch.stft(layers[0](x).squeeze(1), 16, window=window, return_complex=True)
        return layers[1](spectrum.abs())

    found = gf.diagnose(critic, torch.randn(2, 1, 64), quiet=True)
    assert "SgnBackward0" in {layer.operation for layer in found.genuine}


def test_diagnose_leaves_the_critic_as_it_was():
    critic = SpectralResNet(8, 16)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    gf.diagnose(critic, torch.randn(2, 3, 16, 16), quiet=True)
    for name, value in critic.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in critic.parameters())


class WithBuffer(nn.Module):
    """Saves one buffer for its backward, and moves the other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("gain", torch.full((4, 1, 1), 2.0))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.conv(x).tanh() * self.gain


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: lambda x: c(x)], ids=["module", "lambda"])
def test_diagnose_may_run_between_a_forward_and_its_backward(wrap):
    critic = WithBuffer()
    loss = critic(torch.randn(2, 3, 8, 8)).mean()
    gf.diagnose(wrap(critic), torch.randn(2, 3, 8, 8), quiet=True)
    assert critic.calls == 1
    loss.backward()


def test_hooks_of_parameters_do_not_run_and_stay_registered():
    critic, ran = dcgan(4, 16), []
    critic[0].weight.register_hook(ran.append)
    gf.diagnose(critic, torch.randn(2, 3, 16, 16), quiet=True)
    assert not ran
    critic(torch.randn(2, 3, 16, 16)).sum().backward()
    assert len(ran) == 1


def test_the_forward_is_that_of_training_in_evaluation_mode_too():
    """Without gradients an encoder runs one fused kernel, of which torch knows no FLOPs."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    critic, x = nn.Sequential(layer, nn.Linear(8, 1)), torch.randn(4, 7, 8)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        training = gf.diagnose(critic, x, quiet=True)
        evaluation = gf.diagnose(critic.eval(), x, quiet=True)
    assert evaluation == training


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_recurrent_forward_counts_its_matrices(dtype):
    """2 FLOPs for each token and entry of the weights: (4 * 5) * (3 + 5), and 5 of the head."""
    rnn, head = nn.LSTM(3, 5, batch_first=True).to(dtype), nn.Linear(5, 1).to(dtype)
    critic = lambda x: head(rnn(x)[0][:, -1])  # noqa: E731
    found = gf.diagnose(critic, torch.randn(4, 7, 3, dtype=dtype), quiet=True)
    assert found.forward_flops == 2 * 4 * (7 * 20 * 8 + 5)
    assert found.uncounted == ()


@pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")
@pytest.mark.parametrize("groups", [1, 8])
def test_fast_is_recommended_where_groups_take_a_convolution_each(groups, capsys):
    """Forward, inner gradient, its way back and three weight gradients; with groups, two of the
    latter are one for each group."""
    critic = nn.Sequential(nn.Conv2d(8, 8, 3, groups=groups), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 6))
    found = gf.diagnose(critic, torch.randn(2, 8, 8, 8))
    auto, fast = found.convolutions
    assert (auto - fast >= 7) == (groups == 8)
    assert ('graph_cut="fast"' in capsys.readouterr().out) == (groups == 8)


def test_operations_without_a_formula_are_named(capsys):
    vector = nn.Parameter(torch.randn(4))
    head = nn.Linear(4, 1)
    found = gf.diagnose(lambda x: head(x) * (x @ vector)[:, None], torch.randn(3, 4))
    assert "mv" in found.uncounted
    assert "no FLOP formula" in capsys.readouterr().out
