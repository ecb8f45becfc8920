"""What diagnose() says about a critic."""

from __future__ import annotations

import pytest
import torch
from critics import SpectralResNet, dcgan
from torch import nn

import ganloss_fast as gf


def test_diagnose_says_that_all_is_cut(capsys):
    found = gf.diagnose(dcgan(), torch.randn(2, 3, 32, 32))
    assert found.stock == pytest.approx(6, abs=0.01)
    assert found.cut == pytest.approx(4, abs=0.01)
    assert found.genuine == ()
    assert "6.00x" in capsys.readouterr().out


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
