"""The backward passes of a training step, without the gradients that nobody uses.

``loss.backward()`` in a generator step also computes the weight gradients of the discriminator,
for the next ``zero_grad`` to throw away; in a discriminator step it walks on through a generator
whose samples were not detached. Asked for the parameters of one side, autograd leaves out the
rest, and one forward of the discriminator on fake samples can serve both steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import Parameter

from ganloss_fast._torch import run_by_dynamo
from ganloss_fast.checks import check_flag, check_loss, describe, warn_caller
from ganloss_fast.graph_cut.rows import walk
from ganloss_fast.penalties.critic.modules import is_power_iteration
from ganloss_fast.penalties.critic.wrapped import is_sharded

_DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)

# ---- what the arguments may be -----------------------------------------------------------------


@run_by_dynamo
def _refuse_to_be_traced() -> None:
    raise RuntimeError(
        "generator_backward and discriminator_backward: torch.compile cannot trace a backward. "
        "Call them outside of the compiled function, which may return the loss."
    )


def _check_loss(loss: object) -> None:
    if not check_loss("loss", loss).requires_grad:
        raise ValueError("loss: it requires no grad; there is nothing to walk back.")


def _check_module(name: str, module: object) -> None:
    if not isinstance(module, Module):
        advice = " Unpack it." if isinstance(module, (list, tuple)) else ""
        raise TypeError(f"{name}: expected a torch.nn.Module, got {describe(module)}.{advice}")
    if any(is_sharded(part) for part in module.modules()):
        raise ValueError(
            f"{name}: FSDP shards it, and the graph does not hold its parameters. Call "
            "loss.backward(); in a generator step, inside of frozen(discriminator)."
        )
    if isinstance(module, DistributedDataParallel) and module.static_graph:
        raise ValueError(
            f"{name}: DistributedDataParallel(static_graph=True) expects every gradient in every "
            "backward. Leave static_graph out."
        )


def _learning(name: str, modules: Sequence[Module]) -> list[Parameter]:
    """The parameters that a step of these modules moves."""
    if not modules:
        raise TypeError(f"{name}: expected one torch.nn.Module at least, got none.")
    for module in modules:
        _check_module(name, module)
    parameters = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}
    if not parameters:
        raise ValueError(f"{name}: no parameter of it requires grad. Is it frozen?")
    return list(parameters.values())


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """The tensors that a whole backward would give a gradient."""
    for node in walk([get_gradient_edge(loss)[0]]):
        if hasattr(node, "variable"):
            yield node.variable


# ---- one forward for two steps -----------------------------------------------------------------


def _check_shared(critics: Sequence[Module]) -> None:
    """Whether one forward is what two would have been."""
    parts = [part for critic in critics for part in critic.modules() if part.training]
    if any(map(is_power_iteration, parts)):
        raise ValueError(
            "shared_critic: it has a spectral norm in training mode, whose every forward takes a "
            "step of the power iteration: a second forward has other weights. Run the "
            "discriminator on the detached samples again, and leave shared_critic out."
        )
    if any(getattr(part, "running_mean", None) is not None for part in parts):
        warn_caller(
            "shared_critic: the running statistics of its normalisation see the fake samples once "
            "a step, where two forward passes show them twice. Gradients are the same."
        )
    if any(isinstance(part, _DROPOUTS) and part.p > 0 for part in parts):
        warn_caller(
            "shared_critic: both steps see one dropout mask, where two forward passes draw two."
        )


def generator_backward(
    loss: Tensor,
    *generators: Module,
    shared_critic: Module | Sequence[Module] = (),
    retain_graph: bool = False,
) -> None:
    """The backward of a generator loss, into the parameters of the generator alone.

    The discriminator is passed through: its weight gradients, a third of its arithmetic in this
    step, are left out. The generator's are the same to the bit. As with
    :func:`ganloss_fast.frozen`, but the graph stays good for a backward of the discriminator::

        logits = discriminator(fake)
        gf.generator_backward(generator_loss(logits), generator, shared_critic=discriminator)
        generator_optimizer.step()
        loss = discriminator_loss(discriminator(real), logits)      # no second forward of fake
        gf.discriminator_backward(loss, discriminator, shares_forward=True)

    The order matters: the discriminator must not move in between, else autograd raises an error.
    A GradScaler is used as ever, ``generator_backward(scaler.scale(loss), generator)``.
    DistributedDataParallel may wrap either side. A compiled discriminator computes all its
    gradients at once whatever it is asked for: freeze it instead. So does a reentrant checkpoint,
    which refuses to be asked.

    Args:
        loss: a tensor of one element.
        generators: the modules that learn from it. Nothing else gets a gradient: an encoder or an
            embedding that learns in this step is to be passed as well.
        shared_critic: the discriminator, or several, whose forward on these samples the next
            discriminator step uses too. The graph is kept for it.
        retain_graph: keep the graph for another reason.

    Raises:
        ValueError: if the loss does not reach the generator; if ``shared_critic`` has a spectral
            norm in training mode, which moves in every forward; for modules under FSDP or a
            static graph of DistributedDataParallel.
        TypeError: if an argument is of another kind.
        RuntimeError: inside torch.compile.
    """
    if torch.compiler.is_compiling():
        _refuse_to_be_traced()
    _check_loss(loss)
    critics: list[Any] = [shared_critic]
    if isinstance(shared_critic, (list, tuple)):
        critics = list(shared_critic)
    for critic in critics:
        _check_module("shared_critic", critic)
    _check_shared(critics)
    parameters = _learning("generators", generators)
    wanted = {id(parameter) for parameter in parameters}
    if not any(id(leaf) in wanted for leaf in _leaves(loss)):
        raise ValueError(
            "loss: it does not reach the generator. Were the samples detached, or made under "
            "torch.no_grad()?"
        )
    keep = check_flag("retain_graph", retain_graph) or bool(critics)
    torch.autograd.backward(loss, inputs=parameters, retain_graph=keep)


def discriminator_backward(
    loss: Tensor,
    *discriminators: Module,
    shares_forward: bool = False,
    retain_graph: bool = False,
) -> None:
    """The backward of a discriminator loss, into the parameters of the discriminator alone.

    It never walks through the generator. Warns where it could have: then the fake samples were
    not detached, and a graph of the generator was built and kept for nothing.

    Args:
        loss: a tensor of one element, penalties included.
        discriminators: the modules that learn from it.
        shares_forward: the logits of the fake samples are those of the generator step, see
            :func:`generator_backward`. Their graph is no mistake then, and nothing warns of it,
            nor of a module that learns in this step and was not passed.
        retain_graph: keep the graph.

    Raises:
        As :func:`generator_backward`.
    """
    if torch.compiler.is_compiling():
        _refuse_to_be_traced()
    _check_loss(loss)
    parameters = _learning("discriminators", discriminators)
    if not check_flag("shares_forward", shares_forward):
        _warn_of_strangers(loss, parameters)
    torch.autograd.backward(
        loss, inputs=parameters, retain_graph=check_flag("retain_graph", retain_graph)
    )


def _warn_of_strangers(loss: Tensor, parameters: Sequence[Parameter]) -> None:
    own = {id(parameter) for parameter in parameters}
    for leaf in _leaves(loss):
        if isinstance(leaf, Parameter) and id(leaf) not in own:
            warn_caller(
                f"loss: it depends on a parameter of shape {list(leaf.shape)} that is none of the "
                "discriminator's and gets no gradient here. If it is the generator's, detach the "
                "fake samples: critic(fake.detach()), or say shares_forward=True where the "
                "generator step made the logits. If it learns in this step, pass its module too."
            )
            return
