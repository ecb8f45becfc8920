"""TiTok and MaskBit (bytedance/1d-tokenizer): ``modeling/modules/losses.py``."""

from ganloss_fast.compat.taming import hinge_d_loss

__all__ = ["hinge_d_loss"]
