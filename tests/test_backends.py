"""Which implementation serves, how it is chosen, and what is said where it cannot."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import torch
from oracle import draw
from torch._subclasses.fake_tensor import FakeTensorMode

import ganloss_fast as gf
from ganloss_fast import backends, ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

PACKAGE = Path(gf.__file__).parent


def loss() -> torch.Tensor:
    return ops.multi_tensor_loss([Segment(draw(3).requires_grad_(), terms.LINEAR)]).total


def is_native(tensor: torch.Tensor) -> bool:
    return "MultiTensorLoss" in tensor.grad_fn.name()


# ---- choosing ----------------------------------------------------------------------------------


def test_the_choice_is_auto_by_default():
    assert gf.get_backend() == "auto"


def test_auto_takes_the_native_kernels(native):
    with gf.use_backend("auto"):
        assert is_native(loss())


def test_the_reference_serves_where_it_is_chosen():
    with gf.use_backend("reference"):
        assert not is_native(loss())


def test_set_backend_holds_until_it_is_set_again():
    try:
        gf.set_backend("reference")
        assert gf.get_backend() == "reference"
    finally:
        gf.set_backend("auto")


def test_use_backend_restores_the_choice_after_an_error():
    with pytest.raises(KeyError), gf.use_backend("reference"):
        raise KeyError
    assert gf.get_backend() == "auto"


def test_use_backend_may_be_nested():
    with gf.use_backend("reference"):
        with gf.use_backend("auto"):
            assert gf.get_backend() == "auto"
        assert gf.get_backend() == "reference"


@pytest.mark.parametrize(
    "call",
    [
        lambda x: gf.discriminator_loss(x, x, "hinge"),
        lambda x: gf.GeneratorLoss("bce")(x),
        lambda x: gf.interpolate(x, x),
        lambda x: gf.perturb(x, 0.1, torch.tensor(7)),
    ],
    ids=["a loss", "a module", "interpolate", "perturb"],
)
def test_the_advice_to_build_points_at_the_line_of_the_user_once(monkeypatch, call):
    monkeypatch.setattr(backends, "HAS_NATIVE", False)
    monkeypatch.setattr(backends, "_advice", "how to build it")
    with pytest.warns(UserWarning, match="how to build it") as record:
        outputs = [call(draw(3, 2)) for _ in range(2)]
    assert all(isinstance(output, torch.Tensor) for output in outputs)
    assert [warning.filename for warning in record] == [__file__]


def test_a_backend_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"^backend: expected one of auto, .*'cuda_graphs'"):
        gf.set_backend("cuda_graphs")
    assert gf.get_backend() == "auto"


def test_an_explicit_choice_that_cannot_be_honoured_says_why(native):
    """There are no kernels for meta tensors; auto would use the reference."""
    on_meta = [Segment(torch.zeros(3, device="meta"), terms.LINEAR)]
    with pytest.raises(RuntimeError, match=r"'native' was chosen .* meta"):
        ops.multi_tensor_loss(on_meta)
    with gf.use_backend("auto"):
        assert ops.multi_tensor_loss(on_meta).total.is_meta


def test_why_not_gives_a_reason_or_none():
    assert backends.why_not("reference", "cpu") is None
    assert backends.why_not("native", "cpu") == backends.NATIVE_MISSING
    assert backends.why_not("native", "xpu")


# ---- GPUs that the CUDA kernels were not compiled for -------------------------------------------


@pytest.mark.parametrize(
    ("code", "covered", "uncovered"),
    [
        ("sm_80", [(8, 0), (8, 6)], [(7, 5), (9, 0)]),
        ("sm_86", [(8, 6), (8, 9)], [(8, 0)]),
        ("compute_120", [(12, 0), (12, 1), (13, 0)], [(10, 0), (9, 0)]),
        ("sm_90a", [(9, 0)], [(9, 1), (10, 0)]),
        ("sm_100f", [(10, 0), (10, 3)], [(12, 0)]),
    ],
)
def test_gpu_code_runs_on_its_own_major_version_and_ptx_on_all_later(code, covered, uncovered):
    assert all(backends._runs_on(code, capability) for capability in covered)
    assert not any(backends._runs_on(code, capability) for capability in uncovered)


@pytest.fixture
def gpu_of(monkeypatch):
    """Pretends that this machine has a GPU, and CUDA kernels for Ampere and Hopper alone."""

    def pretend(capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(backends, "HAS_CUDA", True)
        facts = {**backends.BUILD_FACTS, "gpu_code": ["sm_80", "sm_90"]}
        monkeypatch.setattr(backends, "BUILD_FACTS", facts)
        backends._uncovered_gpu.cache_clear()
        backends._triton_failure.cache_clear()

    yield pretend
    backends._uncovered_gpu.cache_clear()
    backends._triton_failure.cache_clear()


def on_cuda() -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(3, device="cuda")


def test_auto_takes_the_cuda_kernels_on_a_gpu_that_they_cover(native, gpu_of):
    gpu_of((8, 9))
    with gf.use_backend("auto"):
        assert backends.is_native(on_cuda())


def test_auto_leaves_a_gpu_that_they_do_not_cover_to_others(native, gpu_of):
    gpu_of((12, 0))
    reason = backends.why_not("native", "cuda")
    assert "compiled for sm_80, sm_90, and GPU 0 has compute capability 12.0" in reason
    with gf.use_backend("auto"):
        assert not backends.is_native(on_cuda())
    with gf.use_backend("native"), pytest.raises(RuntimeError, match=r"capability 12\.0"):
        backends.is_native(on_cuda())


# ---- instruction sets --------------------------------------------------------------------------


def test_an_instruction_set_that_does_not_exist_is_refused(native):
    from ganloss_fast import _C

    before = _C.cpu_isa()
    with pytest.raises(ValueError, match=r"isa: .*base.*'avx1024'"):
        _C.select_cpu_isa("avx1024")
    assert _C.cpu_isa() == before


def test_the_best_instruction_set_is_chosen_by_itself(native):
    from ganloss_fast import _C

    if not os.environ.get("GANLOSS_FAST_CPU_ISA"):
        assert _C.cpu_isa() == _C.available_cpu_isas()[-1]


def test_the_environment_chooses_the_instruction_set(native):
    """ "base" is never what a machine of today would take by itself."""
    code = "from ganloss_fast import _C; print(_C.cpu_isa())"
    assert run(code, GANLOSS_FAST_CPU_ISA="base") == "base"


def test_a_wrong_instruction_set_in_the_environment_is_an_error_and_no_crash(native):
    code = (
        "import torch, ganloss_fast as gf\n"
        "try: gf.generator_loss(torch.zeros(3), 'hinge')\n"
        "except ValueError as error: print(error)"
    )
    assert "avx1024" in run(code, GANLOSS_FAST_CPU_ISA="avx1024")


# ---- installations without a usable extension --------------------------------------------------

PROBE = """
import torch, ganloss_fast as gf
from ganloss_fast import backends
r, f = torch.randn(5, requires_grad=True), torch.randn(5)
loss = gf.discriminator_loss(r, f, "bce")
loss.backward()
penalty = gf.gradient_penalty(torch.sin, torch.rand(2, 3), torch.rand(2, 3))
try:
    gf.set_backend("native")
    refusal = ""
except RuntimeError as error:
    refusal = str(error)
print(backends.HAS_NATIVE, r.grad.isfinite().all().item(), penalty.isfinite().item())
print(backends.NATIVE_MISSING)
print(refusal)
"""


def run(code: str, path: Path = PACKAGE.parent, **environment: str) -> str:
    """What a fresh interpreter prints, with warnings as errors."""
    return start(code, path, "error", environment).stdout.strip()


def start(code: str, path: Path, warnings: str, environment: dict) -> subprocess.CompletedProcess:
    result = subprocess.run(
        [sys.executable, "-W", f"{warnings}::UserWarning", "-c", code],
        env={**os.environ, "PYTHONPATH": str(path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=path,
    )
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture
def installation(tmp_path) -> Path:
    """A copy of the package that a test may spoil."""
    shutil.copytree(
        PACKAGE, tmp_path / "ganloss_fast", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def spoil_facts(installation: Path, **changed: object) -> None:
    path = installation / "ganloss_fast" / "_build.json"
    facts = json.loads(path.read_text()) if path.exists() else {"built": "cpu", "reasons": {}}
    path.write_text(json.dumps({**facts, **changed}))


def without_compiler(installation: Path) -> None:
    for path in (installation / "ganloss_fast").glob("_C*"):
        path.unlink()
    spoil_facts(installation, built="none", reasons={"native": "no C++ compiler"}, torch=None)


def replace_binary(installation: Path, content: bytes) -> None:
    spoil_facts(installation, reasons={})
    for path in (installation / "ganloss_fast").glob("_C*"):
        path.unlink()
    (installation / "ganloss_fast" / "_C.so").write_bytes(content)


def for_another_torch(installation: Path) -> None:
    # Were it loaded, "does not load" would be the reason.
    replace_binary(installation, b"\x7fELF GANLOSS_FAST_TORCH=1.0.0\0")


def of_unknown_origin(installation: Path) -> None:
    replace_binary(installation, b"not a library")


def with_a_broken_binary(installation: Path) -> None:
    replace_binary(installation, f"GANLOSS_FAST_TORCH={torch.__version__}\0".encode())


SPOILED = {
    without_compiler: "no C++ compiler",
    for_another_torch: "built for torch 1.0.0 and this is",
    of_unknown_origin: "does not say which",
    with_a_broken_binary: "does not load",
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_the_reference_serves_and_one_line_says_why_the_kernels_do_not(installation, spoil):
    spoil(installation)
    started = start(PROBE, installation, "always", {})
    works, missing, refusal = started.stdout.strip().splitlines()
    assert works == "False True True"
    assert SPOILED[spoil] in missing
    assert missing in refusal
    # What is there and refused warns once, at import, with the command that mends it; who has no
    # compiler knows.
    warned = started.stderr.count("the native kernels are not used")
    assert warned == (0 if spoil is without_compiler else 1)
    assert started.stderr.count("--no-binary ganloss_fast") == warned


# ---- the reference is the specification --------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "discriminator_loss",
        "generator_loss",
        "feature_matching_loss",
        "interpolate",
    ],
)
def test_the_reference_has_the_signature_of_the_package(name):
    ours, plain = (inspect.signature(getattr(m, name)).parameters for m in (gf, reference))
    assert list(ours) == list(plain)
    assert [p.default for p in ours.values()] == [p.default for p in plain.values()]
    assert [p.kind for p in ours.values()] == [p.kind for p in plain.values()]


def test_the_reference_penalty_has_the_keywords_that_change_its_value_most():
    """The others are checked against formulas in test_penalty_family.py."""
    value = inspect.signature(gf.WGANGP).parameters
    ours = {**value, **inspect.signature(gf.gradient_penalty).parameters, "weight": value["weight"]}
    for name, parameter in inspect.signature(reference.gradient_penalty).parameters.items():
        assert name in ours
        assert name == "fake" or ours[name].default == parameter.default


def test_every_public_name_is_there_and_documented():
    for name in gf.__all__:
        assert getattr(gf, name).__doc__, name
