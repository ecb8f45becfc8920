"""KL-WGAN: fake logits weighed by how real they look."""

from __future__ import annotations

from torch import Tensor

from ganloss_fast.checks import check_number, check_tensor
from ganloss_fast.ops.terms import compute_dtype


def kl_weighted_logits(fake: Tensor, temperature: float = 1.0) -> Tensor:
    """The fake logits of KL-WGAN (Song & Ermon, 2020), for any loss.

    .. math:: \\tilde f_i = f_i \\, \\frac{e^{f_i / T}}{E_j[e^{f_j / T}]}

    ermongroup/f-wgan: ``discriminator_loss(real, kl_weighted_logits(fake), "hinge")`` and
    ``generator_loss(kl_weighted_logits(fake), "hinge")``. The gradient flows through the weights
    too, as it does there. A softmax is plain PyTorch; the loss behind it is the op's.

    Args:
        fake: logits on generated samples, of any shape; the mean runs over all of them.
        temperature: ``T``.

    Returns:
        Tensor like ``fake``; float32 for half precision, where the exponentials would overflow.

    Raises:
        ValueError: if the temperature is not positive.
        TypeError: if ``fake`` is not a floating-point tensor.
    """
    temperature = check_number("temperature", temperature)
    if temperature <= 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}.")
    wide = check_tensor("fake", fake).to(compute_dtype(fake.dtype))
    shares = (wide.reshape(-1) / temperature).softmax(0).view(wide.shape)
    return wide * shares * wide.numel()
