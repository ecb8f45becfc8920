"""1d-tokenizer's hinge loss."""

from ganloss_fast.compat import taming, titok


def test_the_hinge_loss_is_tamings():
    assert titok.hinge_d_loss is taming.hinge_d_loss
