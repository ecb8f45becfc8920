"""perturb: the same noise for the same seed on every backend, to 4 units in the last place.

The truth is the formula in extended precision, on random words that are bitwise the published
ones. These tests run on the CPU kernels and the reference, on the emulated CUDA kernels (pytest
--emulated-cuda) and on the Triton kernels in its interpreter (TRITON_INTERPRET=1 pytest).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from layouts import LAYOUTS

import ganloss_fast as gf
from ganloss_fast import backends
from ganloss_fast.ops.perturb import normals, philox, words_of_blocks

pytestmark = pytest.mark.every_implementation

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SEEDS = (0, 1, -1, 2**62 + 12345, -(2**63))
COUNT = 5003  # several tiles and blocks, and a last block of noise that is cut short

# Random123's known answers for Philox4x32-10: counter, key, words.
KNOWN_WORDS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "known"), KNOWN_WORDS)
def test_philox_words_are_the_published_ones(counter, key, known):
    low, high = words(key)
    signed = (high << 32 | low) - (high >> 31 << 64)
    actual = philox(torch.tensor([words(counter)]), torch.tensor(signed))
    assert actual.tolist() == [words(known)]


def exact_normals(seed: int, count: int, dtype: torch.dtype) -> np.ndarray:
    """[count] in extended precision, from uniforms that are rounded to `dtype` as they should."""
    assert np.finfo(np.longdouble).eps < 1e-18, "needs a long double of more than 64 bits"
    blocks = torch.arange((count + 3) // 4)
    rounded = words_of_blocks(torch.tensor(seed), blocks).to(dtype)
    uniform = (rounded * 2.0**-32 + 2.0**-33).numpy().astype(np.longdouble)
    two_pi = 8 * np.arctan(np.longdouble(1))
    radius = np.sqrt(-2 * np.log(uniform[:, 0::2]))
    quarter = np.round(4 * uniform[:, 1::2])  # exact zeros at half and whole turns
    angle = (uniform[:, 1::2] - quarter / 4) * two_pi
    sine, cosine = np.sin(angle), np.cos(angle)
    rotations = [(sine, cosine), (cosine, -sine), (-sine, -cosine), (-cosine, sine)]
    pairs = np.zeros((*radius.shape, 2), np.longdouble)
    for k, (rotated_sine, rotated_cosine) in enumerate(rotations):
        chosen = quarter % 4 == k
        pairs[chosen] = np.stack([rotated_sine, rotated_cosine], -1)[chosen]
    return (radius[..., None] * pairs).reshape(-1)[:count]


def spacing(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """One unit in the last place of `dtype` at the values."""
    rounded = torch.from_numpy(np.abs(values.astype(np.float64))).to(dtype)
    return (rounded.nextafter(torch.tensor(torch.inf, dtype=dtype)) - rounded).double().numpy()


def noise(count: int, dtype: torch.dtype, seed: int = 7) -> torch.Tensor:
    return gf.perturb(torch.zeros(count, dtype=dtype), 1.0, torch.tensor(seed))


def ulp_of(actual: torch.Tensor, truth: np.ndarray) -> float:
    """The largest error in units in the last place of the tensor's dtype."""
    error = np.abs(actual.numpy().astype(np.longdouble) - truth)
    return float((error / spacing(truth, actual.dtype)).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_noise_is_right_to_4_ulp(implementation, seed, dtype):
    """In float64 this also pins the words to the bit: a uniform has all 32 bits of its word."""
    actual = noise(COUNT, dtype, seed)
    assert actual.dtype == dtype
    assert ulp_of(actual, exact_normals(seed, COUNT, dtype)) <= 4


def test_the_check_of_the_noise_can_fail():
    """One word that is off by one, or an angle that was rounded before the reduction."""
    truth = exact_normals(1, COUNT, torch.float64)
    seed = torch.tensor(1)
    wrong = words_of_blocks(seed, torch.arange(1 + COUNT // 4))
    wrong[3, 1] ^= 1
    uniform = wrong.double() * 2.0**-32 + 2.0**-33
    radius, angle = (-2 * uniform[:, 0::2].log()).sqrt(), uniform[:, 1::2] * (2 * torch.pi)
    naive = torch.stack([radius * angle.sin(), radius * angle.cos()], 2).reshape(-1)[:COUNT]
    assert ulp_of(naive, truth) > 4
    assert ulp_of(normals(torch.tensor(2), COUNT, torch.float64), truth) > 4
    assert ulp_of(normals(seed, COUNT, torch.float64), truth) <= 4


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples_are_moved_by_sigma_times_the_noise(implementation, dtype):
    """With one rounding of the sum to the samples' dtype."""
    x = torch.randn(COUNT, dtype=torch.float64).to(dtype)
    compute = torch.promote_types(dtype, torch.float32)
    actual = gf.perturb(x, 0.3, torch.tensor(5))
    assert actual.dtype == dtype
    n = exact_normals(5, COUNT, compute)
    truth = x.double().numpy() + np.longdouble(torch.tensor(0.3, dtype=compute).item()) * n
    error = np.abs(actual.double().numpy() - truth)
    arithmetic = 5 * spacing(np.maximum(np.abs(truth), 0.3 * np.abs(n)), compute)
    assert (error <= 0.5 * spacing(truth, dtype) + arithmetic).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8, 9, 1023, 1024, 1025, 4099])
def test_an_element_s_noise_depends_on_its_index_alone(implementation, count, dtype):
    assert torch.equal(noise(count, dtype), noise(COUNT, dtype)[:count])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_noise_follows_the_row_major_index_in_any_layout(implementation, layout, dtype):
    x = LAYOUTS[layout](dtype)
    actual = gf.perturb(x, 0.5, torch.tensor(9))
    assert torch.equal(actual, gf.perturb(x.clone(memory_format=torch.contiguous_format), 0.5,
                                          torch.tensor(9)))  # fmt: skip
    assert actual.stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_storage_off_the_16_byte_boundary_changes_nothing(implementation, offset, dtype):
    x = torch.randn(COUNT + offset).to(dtype)
    actual = gf.perturb(x[offset:], 0.5, torch.tensor(9))
    assert torch.equal(actual, gf.perturb(x[offset:].clone(), 0.5, torch.tensor(9)))


def test_without_sigma_nothing_moves(implementation):
    x = torch.randn(100)
    assert torch.equal(gf.perturb(x, 0.0, torch.tensor(1)), x)


def test_a_seed_of_one_element_serves_in_any_shape(implementation):
    x = torch.randn(9)
    seeds = torch.tensor([3, 4])
    assert torch.equal(
        gf.perturb(x, 1.0, seeds[1:].view(1, 1)), gf.perturb(x, 1.0, torch.tensor(4))
    )


def test_noise_is_standard_normal(implementation):
    n = noise(40_000, torch.float64)
    assert n.mean().abs() < 4 / math.sqrt(40_000)
    assert n.std() == pytest.approx(1, abs=0.02)
    assert n.pow(4).mean() == pytest.approx(3, abs=0.2)
    assert torch.corrcoef(torch.stack([n[:-1], n[1:]]))[0, 1].abs() < 0.02


@pytest.mark.cpu_only
def test_noise_does_not_depend_on_threads(implementation):
    one = noise(100_003, torch.float32)
    torch.set_num_threads(2)
    assert torch.equal(noise(100_003, torch.float32), one)


def test_the_gradient_passes_through_the_noise(implementation):
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def moved(z):
        return gf.perturb(z, 0.5, torch.tensor(3))

    assert torch.autograd.gradcheck(moved, x)
    assert torch.autograd.gradgradcheck(lambda z: moved(z) ** 3, x)
    incoming = torch.randn(5, dtype=torch.float64)
    assert torch.equal(torch.autograd.grad(moved(x), x, incoming)[0], incoming)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # opcheck's own
@pytest.mark.cpu_only
@pytest.mark.skipif(not backends.HAS_NATIVE, reason="there is no op")
def test_perturb_is_a_well_behaved_op():
    x = torch.randn(3, 5, requires_grad=True)
    pytest.importorskip("expecttest", reason="torch.library.opcheck needs expecttest")
    torch.library.opcheck(torch.ops.ganloss_fast.perturb.default, (x, 0.5, torch.tensor(3)))
