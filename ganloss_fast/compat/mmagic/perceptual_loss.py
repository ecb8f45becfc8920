"""``mmagic/models/losses/perceptual_loss.py``: perceptual and style loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ganloss_fast.compat._perceptual import Extractor, LayeredLoss


class PerceptualLoss(LayeredLoss):
    """:class:`ganloss_fast.compat.basicsr.PerceptualLoss` with mmagic's names and defaults.

    Args:
        layer_weights: of the perceptual loss, by the names of layers.
        layer_weights_style: of the style loss; None: the same.
        vgg_type: not used: the network is made already. So is ``pretrained``.
        use_input_norm: normalise images in [0, 1] as the networks of torchvision want it.
        perceptual_weight: not above 0 leaves that loss out.
        style_weight: the same.
        norm_img: images are in [-1, 1]: to [0, 1] before that.
        criterion: ``"l1"``, or ``"mse"``.
        network: images to a dict of feature maps by layer, of both losses. Its parameters are
            frozen.

    Raises:
        ganloss_fast.compat.UnknownMode: for another criterion.
        TypeError: if the network is missing.
    """

    CRITERIA: ClassVar[dict[str, str | None]] = {"l1": "l1", "mse": "mse"}

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        layer_weights_style: Mapping[str, float] | None = None,
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        perceptual_weight: float = 1.0,
        style_weight: float = 1.0,
        norm_img: bool = True,
        pretrained: str = "torchvision://vgg19",
        criterion: str = "l1",
        *,
        network: Extractor | None = None,
    ) -> None:
        super().__init__(
            layer_weights,
            layer_weights if layer_weights_style is None else layer_weights_style,
            use_input_norm,
            norm_img,
            perceptual_weight,
            style_weight,
            criterion.lower() if isinstance(criterion, str) else criterion,
            network,
        )
