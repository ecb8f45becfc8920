"""Installations in which the extension, Triton or a compiler is missing, in fresh processes.

Who serves a CUDA tensor in each of them is the subject of test_backend_selection.py.

The autograd classes of the ops, which serve where the extension is missing, run here over the
extension's own CPU kernels; over the Triton kernels they run in test_triton_segments.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import ganloss_fast
from ganloss_fast import backends, ops, reference
from ganloss_fast.ops import terms
from ganloss_fast.ops.dispatch import is_plain_eager
from ganloss_fast.ops.interpolate import interpolate_function
from ganloss_fast.ops.multi_tensor_loss import multi_tensor_loss_function
from ganloss_fast.ops.norm_penalty import norm_penalty_function
from ganloss_fast.ops.perturb import perturb_function
from ganloss_fast.ops.terms import Segment

ROOT = Path(ganloss_fast.__file__).parents[1]


# ---- installations in which something is missing -----------------------------------------------


def run_python(code: str, path: Path, **environment: str) -> str:
    """Runs code in a fresh process against the package at `path`; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=path,
        env={**os.environ, "PYTHONPATH": str(path), **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="session")
def without_extension(tmp_path_factory) -> Path:
    """The package as it installs where nothing can be compiled."""
    path = tmp_path_factory.mktemp("pure")
    ignored = shutil.ignore_patterns("_C*", "_build.json", "__pycache__")
    shutil.copytree(ROOT / "ganloss_fast", path / "ganloss_fast", ignore=ignored)
    return path


NO_TRITON = """
    import sys
    sys.modules["triton"] = None  # import triton: ModuleNotFoundError
"""

LOSS = """
    import torch, ganloss_fast
    from ganloss_fast import backends, ops
    real, fake = torch.randn(2, 3, requires_grad=True)
    loss = ganloss_fast.discriminator_loss(real, fake, "hinge")
    loss.backward()
    print(round(loss.item(), 4) == round((1 - real).relu().mean().item()
          + (1 + fake).relu().mean().item(), 4))
"""


def test_without_the_extension_the_cpu_takes_the_reference(without_extension):
    printed = run_python(
        LOSS + "    print(backends.HAS_NATIVE, backends.is_native(real), backends.is_triton(real))",
        without_extension,
        TRITON_INTERPRET="0",
    )
    assert printed.split() == ["True", "False", "False", "False"]


def test_without_the_extension_its_choice_is_refused_with_the_reason(without_extension):
    printed = run_python(
        """
        import ganloss_fast
        try:
            ganloss_fast.set_backend("native")
        except RuntimeError as error:
            print(error)
        """,
        without_extension,
    )
    assert "backend 'native' is not available: the extension is not built" in printed


@pytest.mark.parametrize("extension", [True, False])
def test_without_triton_everything_else_works(without_extension, extension):
    path = ROOT if extension else without_extension
    printed = run_python(
        NO_TRITON
        + LOSS
        + """
    assert not any(name.startswith("triton.") for name in sys.modules)
    print(backends.HAS_NATIVE, backends.REGISTERS_TRITON, backends.why_not("triton", "cuda"))
    try:
        ganloss_fast.set_backend("triton")
    except RuntimeError as error:
        print(error)
    """,
        path,
    ).splitlines()
    has_native = str(extension and backends.HAS_NATIVE)
    missing = "it is not installed (run: pip install triton)"
    assert printed[0] == "True"
    assert printed[1] == f"{has_native} False {missing}"
    assert printed[2] == f"backend 'triton' is not available: {missing}"


def test_importing_the_package_does_not_import_triton():
    printed = run_python(
        """
        import sys
        import torch
        before = set(sys.modules)
        import ganloss_fast
        print([name for name in set(sys.modules) - before if name.split(".")[0] == "triton"])
        """,
        ROOT,
    )
    assert printed == "[]"


def test_without_a_compiler_the_install_says_so(without_extension, tmp_path):
    """What setup.py writes where it finds no compiler is what users read."""
    shutil.copytree(without_extension, tmp_path / "package")
    reason = "no C++ compiler (g++) was found when it was installed"
    facts = f'{{"built": "none", "reasons": {{"native": "{reason}"}}, "torch": "any"}}'
    (tmp_path / "package" / "ganloss_fast" / "_build.json").write_text(facts)
    printed = run_python(
        LOSS + "    print(backends.why_not('native', 'cpu'))", tmp_path / "package"
    )
    assert printed.splitlines() == ["True", reason]


# ---- the ops as Python autograd.Function classes ----------------------------------------------


@pytest.fixture
def kernels():
    """The extension's CPU kernels as plain functions: no autograd of their own is used."""
    if not backends.HAS_NATIVE:
        pytest.skip(f"no extension: {backends.NATIVE_MISSING}")
    return SimpleNamespace(
        **{
            name: getattr(torch.ops.ganloss_fast, name).default
            for op in ops.OPS
            for name in op.fake_kernels()
        }
    )


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def segments_of(a, b, mean) -> list[Segment]:
    weight = torch.linspace(0, 1, a.numel(), dtype=a.dtype)
    return [
        Segment(a, terms.softplus(-1.0), 1.5, b),
        Segment(a, terms.squared(0.3), 0.5, mean, weight),
        Segment(b, terms.LINEAR, -1.0),
    ]


def loss_of(kernels, a, b, mean):
    """A scalar that uses the total and one of the values."""
    arguments = ops.flatten_segments(segments_of(a, b, mean))
    total, values, _ = multi_tensor_loss_function(kernels, *arguments, False)
    return total + 2 * values[1]


def plain_loss_of(a, b, mean):
    outputs = reference.multi_tensor_loss(segments_of(a, b, mean))
    return outputs.total + 2 * outputs.values[1]


def test_functions_have_first_and_second_derivatives(kernels):
    torch.manual_seed(0)
    inputs = (draw(5), draw(5), draw())
    assert torch.autograd.gradcheck(lambda *x: loss_of(kernels, *x), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: loss_of(kernels, *x), inputs)

    def penalty(g):
        return norm_penalty_function(kernels, g, 1, 0.5, 3.0)[0]

    assert torch.autograd.gradcheck(penalty, draw(3, 4))
    assert torch.autograd.gradgradcheck(penalty, draw(3, 4))
    for alpha in (draw(), draw(3), draw(3, 4)):
        samples = (draw(3, 4), draw(3, 4), alpha)
        assert torch.autograd.gradcheck(lambda *x: interpolate_function(kernels, *x), samples)
        assert torch.autograd.gradgradcheck(lambda *x: interpolate_function(kernels, *x), samples)

    def energy(x):
        return perturb_function(kernels, x, 0.5, torch.tensor(3)) ** 3

    assert torch.autograd.gradcheck(energy, draw(5))
    assert torch.autograd.gradgradcheck(energy, draw(5))


@pytest.mark.parametrize("learns", ["a", "b", "mean"])
def test_functions_give_gradients_to_whoever_asks(kernels, learns):
    inputs = {"a": draw(5), "b": draw(5), "mean": draw()}
    inputs = {n: x if n == learns else x.detach() for n, x in inputs.items()}
    (actual,) = torch.autograd.grad(loss_of(kernels, **inputs), inputs[learns], create_graph=True)
    (expected,) = torch.autograd.grad(plain_loss_of(**inputs), inputs[learns], create_graph=True)
    torch.testing.assert_close(actual, expected)
    actual, expected = (
        torch.autograd.grad(g.square().sum(), inputs[learns], allow_unused=True)[0]
        for g in (actual, expected)
    )
    torch.testing.assert_close(actual, expected)


def test_functions_run_backward_twice(kernels):
    a, b, mean = draw(5), draw(5), draw()
    loss = loss_of(kernels, a, b, mean)
    loss.backward(retain_graph=True)
    once = a.grad.clone()
    loss.backward()
    torch.testing.assert_close(a.grad, 2 * once)


def test_functions_raise_for_a_third_derivative(kernels):
    a = draw(5)
    (first,) = torch.autograd.grad(loss_of(kernels, a, draw(5), draw()), a, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), a, create_graph=True)
    with pytest.raises(NotImplementedError, match="third-order"):
        torch.autograd.grad(second.sum(), a)
    g = draw(3, 4)
    penalty = norm_penalty_function(kernels, g, 0, 1.0, 1.0)[0]
    (first,) = torch.autograd.grad(penalty, g, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), g, create_graph=True)
    with pytest.raises(NotImplementedError, match="third-order"):
        torch.autograd.grad(second.sum(), g)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, when it is first used
def test_functions_raise_in_forward_mode(kernels):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(draw(5).detach(), draw(5).detach())
        with pytest.raises(RuntimeError, match=r"forward|jvp"):
            loss_of(kernels, dual, draw(5), draw())


def test_functions_refuse_weights_that_require_grad(kernels):
    weight = draw(5)
    arguments = ops.flatten_segments([Segment(draw(5), terms.LINEAR, weight=weight)])
    with pytest.raises(NotImplementedError, match="weights: no gradient flows"):
        multi_tensor_loss_function(kernels, *arguments, False)


def test_functions_leave_functorch_and_tracing_to_the_reference():
    """Where Function classes would refuse, or lose the second-order term."""
    x = torch.zeros(3)
    seen = {}
    seen["eager"] = is_plain_eager(x)
    torch.func.grad(lambda t: seen.update(grad=is_plain_eager(t)) or t.sum())(x)
    torch.vmap(lambda t: seen.update(vmap=is_plain_eager(t)) or t)(x)
    with FakeTensorMode() as mode:
        seen["fake"] = is_plain_eager(mode.from_tensor(x))

    def traced(t):
        return t + 1 if is_plain_eager(t) else t - 1

    seen["compiled"] = torch.compile(traced, backend="eager", fullgraph=True)(x)[0].item() > 0
    assert seen == {"eager": True, "grad": False, "vmap": False, "fake": False, "compiled": False}
