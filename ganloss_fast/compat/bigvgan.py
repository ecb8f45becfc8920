"""BigVGAN (NVIDIA/BigVGAN): ``loss.py``. Its adversarial losses are those of HiFi-GAN."""

from ganloss_fast.compat.hifigan import discriminator_loss, feature_loss, generator_loss

__all__ = ["discriminator_loss", "feature_loss", "generator_loss"]
