"""The demo: a GAN on photographs, trained with plain PyTorch losses and with ganloss_fast."""
