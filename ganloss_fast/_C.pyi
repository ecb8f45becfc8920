"""The native kernels (csrc/python_module.cpp). Importing them registers the ops."""

from collections.abc import Callable, Sequence

from torch import Tensor

from ganloss_fast.graph_cut.rows import Row
from ganloss_fast.ops.terms import Segment, SideOfLoss

compiler: str
"""The version of the C++ compiler that built the module."""

def op_names() -> list[str]:
    """Every op of the namespace ``ganloss_fast``, in the order of csrc/schemas.h."""

def term_names() -> list[str]:
    """The terms by their codes: csrc/math/terms.h."""

def penalty_mode_names() -> list[str]:
    """The penalties on a norm by their codes: csrc/math/penalty.h."""

def available_cpu_isas() -> list[str]:
    """The instruction sets that the CPU kernels have and this processor runs, the best last."""

def cpu_isa() -> str:
    """The instruction set in use."""

def select_cpu_isa(isa: str, /) -> None:
    """Changes it, for every thread. ``ValueError`` where this processor does not have it."""

def multi_tensor_loss(
    segments: list[Segment], with_statistics: bool, /
) -> tuple[Tensor, Tensor, Tensor]:
    """The op of that name (total, values, statistics), on a shorter way than ``torch.ops``."""

def total_of_sides(sides: tuple[SideOfLoss, ...], /) -> Tensor | None:
    """The total of the segments that the sides stand for. None where one has no summands or other
    outputs than dense floating-point tensors on one device, or where their numbers differ."""

def set_row_lookup(lookup: Callable[[str], Row | None], /) -> None:
    """Where the graph cut looks up the row of a node by its name, once for each type of node."""

def set_stand_in_proof(proof: Callable[[str], bool], /) -> None:
    """Who says of a node that stands in for one of stock autograd whether it may be used."""

def under_stand_in(gradient: Tensor, node: str, /) -> Tensor:
    """A convolution's gradient under the node of that name, proven or not."""

def cut_second_order(
    grads: Sequence[Tensor],
    zero_grads: int,
    parameters: Sequence[Tensor],
    hidden: Sequence[Tensor],
    fast_weights: bool,
    /,
) -> tuple[list[Tensor], int, int, bool]:
    """The gradients, and the edges cut, nodes seen, and whether a node is of torch.compile."""

class SharedBackward:
    """One backward for a main loss and a penalty: csrc/graph_cut/shared_backward.h."""

    def __init__(self, logits: Tensor, inputs: list[Tensor], /) -> None: ...
    @property
    def refusal(self) -> str:
        """Why it cannot be; empty while nothing speaks against it."""

    @property
    def fingerprint(self) -> int:
        """Of the operations, their shapes and the critic's leaves."""

    @property
    def has_custom_functions(self) -> bool:
        """Whether it runs an autograd.Function."""

    @property
    def row_indices(self) -> list[Tensor]:
        """Each must be 0, 1, 2, ..., or samples are mixed."""

    def gradients(self, directions: Tensor, /) -> list[Tensor]:
        """Inner gradients, one for each input, of the logits times ``directions``."""

    def compare(self, directions: Tensor, factors: Tensor, /) -> Tensor:
        """The same of logits multiplied by ``factors`` [B], too. [layers, 3]: whether rows were
        multiplied alike, the share of samples that are not zero, whether all are finite."""

    def join(self, gradients: Sequence[Tensor], inverse: Tensor | None, /) -> list[Tensor] | None:
        """Logits and gradients on a graph of their own; None where ``refusal`` says why."""
