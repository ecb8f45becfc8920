"""Drop-ins: for each codebase a module with its own names, signatures and return types.

Change one import: ``from models.networks import GANLoss`` becomes
``from ganloss_fast.compat.cyclegan import GANLoss``. A module is thin: it says what the codebase
says and calls the public functions of the package.
"""

from ganloss_fast.compat._criteria import UnknownMode

__all__ = ["UnknownMode"]
