"""The ops on a real GPU. Every test is skipped, with the reason, where there is none.

The op tests of the other files run there too: ``pytest --on-gpu=native`` and ``--on-gpu=triton``
move the arguments of every op to the device, and its results back.
"""

from __future__ import annotations

import pytest
import torch

import ganloss_fast
from ganloss_fast import backends, ops
from ganloss_fast.bench.cuda_graph import capture
from ganloss_fast.ops import terms
from ganloss_fast.ops.perturb import normals_of_blocks
from ganloss_fast.ops.terms import Segment

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(),
        reason="no GPU: torch.cuda.is_available() is False (tests/proofs runs the kernels here)",
    ),
    pytest.mark.skipif(
        not backends.HAS_CUDA, reason=f"no CUDA kernels: {backends.why_not('native', 'cuda')}"
    ),
]
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SIZES = (0, 1, 509, 2047, 2048, 2049, 1_000_001)
TERMS = {
    "softplus": terms.softplus(-1.0),
    "hinge": terms.hinge(1.0, 1.0),
    "squared": terms.squared(0.25),
    "linear": terms.LINEAR,
    "abs": terms.ABSOLUTE,
}
assert tuple(TERMS) == terms.TERM_NAMES, "a term has no case here"
LOSSES = ("bce", "hinge", "least_squares", "wasserstein")


@pytest.fixture(params=["cuda:0", "cuda:1"])
def device(request):
    """Both GPUs, while the first is current: every launch must find the device of its tensors."""
    if int(request.param[-1]) >= torch.cuda.device_count():
        pytest.skip(f"{torch.cuda.device_count()} GPU here, the device guard needs two")
    torch.cuda.set_device(0)
    with ganloss_fast.use_backend("native"):
        yield torch.device(request.param)
    assert torch.cuda.current_device() == 0


def tensor(*shape, dtype, device):
    return torch.randn(shape, dtype=torch.float64).to(device, dtype).requires_grad_()


def both_orders(function, inputs, directions):
    """A value, its gradients, and the gradients of their product with fixed directions."""
    value = function(*inputs)
    first = torch.autograd.grad(value, inputs, create_graph=True, materialize_grads=True)
    dot = sum((g * d.to(g)).sum() for g, d in zip(first, directions))
    second = [torch.zeros_like(x) for x in inputs]
    if dot.requires_grad:
        second = torch.autograd.grad(dot, inputs, materialize_grads=True)
    return [value, *first, *second]


def assert_agrees_with_float64(function, inputs):
    """The native result on the GPU against the reference on the CPU in float64."""
    directions = [torch.randn(x.shape, dtype=torch.float64) for x in inputs]
    exact = [x.detach().double().cpu().requires_grad_() for x in inputs]
    actual = both_orders(function, inputs, directions)
    with ganloss_fast.use_backend("reference"):
        expected = both_orders(function, exact, directions)
    # Two roundings of the inputs' dtype (autograd adds gradients in it, and what is added may
    # cancel, so they count against the largest), and a few of the arithmetic.
    rounding = torch.finfo(inputs[0].dtype).eps
    arithmetic = torch.finfo(torch.promote_types(inputs[0].dtype, torch.float32)).eps
    for ours, truth in zip(actual, expected):
        scale = truth.abs().nan_to_num().max().item() if truth.numel() else 0.0
        least = 6e-8 if ours.dtype == torch.float16 else 0.0  # its smallest number
        torch.testing.assert_close(
            ours.double().cpu(),
            truth,
            rtol=0.0,
            atol=(2 * rounding + 100 * arithmetic) * max(scale, ours.dim() == 0) + least,
            equal_nan=True,
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("term", TERMS)
def test_multi_tensor_loss(device, term, size, dtype):
    a, b = (tensor(size, dtype=dtype, device=device) for _ in range(2))

    def loss(a, b):
        pair, mean = Segment(a, TERMS[term], 0.7, b=b), b.double().mean()
        single = Segment(a, TERMS[term], 1.3, b=mean)
        return ops.multi_tensor_loss([pair, single]).total

    assert_agrees_with_float64(loss, [a, b])


@pytest.mark.parametrize("offset", [1, 3, 4, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unaligned_views(device, dtype, offset):
    a = tensor(10_000, dtype=dtype, device=device)
    b = tensor(10_000, dtype=dtype, device=device)

    def loss(a, b):
        return ops.multi_tensor_loss([Segment(a[offset:], TERMS["softplus"], b=b[:-offset])]).total

    assert_agrees_with_float64(loss, [a, b])


@pytest.mark.parametrize("length", [60, 400, 1200])
def test_long_lists(device, length):
    inputs = [tensor(1 + 37 * (k % 11), dtype=torch.float32, device=device) for k in range(length)]

    def loss(*inputs):
        given = [Segment(a, TERMS["softplus"], 1.0 / (1 + k)) for k, a in enumerate(inputs)]
        return ops.multi_tensor_loss(given).total

    assert_agrees_with_float64(loss, inputs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 1024, 1024), (65_536, 3), (16, 3, 32, 32), (7, 5), (3,)])
def test_norm_penalty(device, shape, dtype):
    gradient = tensor(*shape, dtype=dtype, device=device)

    def penalty(gradient):
        return ops.norm_penalty(gradient / 3, "two_sided", 1.0, 10.0)[0]

    assert_agrees_with_float64(penalty, [gradient])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("alpha", ["number", "sample", "element"])
def test_interpolate(device, alpha, dtype):
    shape = {"number": (), "sample": (6,), "element": (6, 3, 17, 19)}[alpha]
    weight = torch.rand(shape, dtype=torch.float64)
    real, fake = (tensor(6, 3, 17, 19, dtype=dtype, device=device) for _ in range(2))

    def energy(real, fake):
        return ops.interpolate(real, fake, weight.to(real.device)).double().square().mean()

    assert_agrees_with_float64(energy, [real, fake])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_perturb_adds_the_noise_of_the_cpu(device, size, dtype):
    """The same words, and normals within 4 ulp of the CPU's; then one rounding of the sum."""
    seed = torch.tensor(-1234567890123456789)
    x = tensor(size + 1, dtype=dtype, device=device)[1:]  # off the 16-byte boundary
    compute = torch.promote_types(dtype, torch.float32)
    for given in (x, x.clone()):
        moved = ops.perturb(given, 0.5, seed.to(device))
        with ganloss_fast.use_backend("reference"):
            noise = ops.perturb(torch.zeros(size, dtype=compute), 0.5, seed)
        assert_sum_of(moved.detach().cpu(), x.detach().cpu(), noise)
    zeros = torch.zeros(size, dtype=compute, device=device)
    torch.testing.assert_close(
        ops.perturb(zeros, 0.5, seed.to(device)).cpu(), noise, rtol=4 * torch.finfo(compute).eps,
        atol=0.0,
    )  # fmt: skip
    assert torch.equal(torch.autograd.grad(moved.sum(), x)[0], torch.ones_like(x))


def assert_sum_of(moved, x, noise):
    """x + noise, with one rounding to the dtype of x and 4 ulp of the noise."""
    slack = 5 * torch.finfo(noise.dtype).eps * (x.abs().double() + noise.abs().double())
    exact = x.double() + noise.double()
    rounding = 0.5 * torch.finfo(x.dtype).eps * exact.abs() + 6e-8 * (x.dtype == torch.float16)
    assert ((moved.double() - exact).abs() <= rounding + slack).all()


def test_noise_follows_the_row_major_index_on_the_device(device):
    x, seed = torch.randn(3, 4, 5, 7, device=device), torch.tensor(5, device=device)
    moved = ops.perturb(x.to(memory_format=torch.channels_last), 0.5, seed)
    assert torch.equal(moved, ops.perturb(x, 0.5, seed))
    assert moved.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("loss", LOSSES)
def test_bitwise_repeatable(device, loss):
    real, fake = (tensor(8, 1, 333, 333, dtype=torch.float32, device=device) for _ in range(2))

    def run():
        value = ganloss_fast.discriminator_loss(real, fake, loss)
        return [value, *torch.autograd.grad(value, [real, fake])]

    expected = run()
    for _ in range(20):
        assert all(torch.equal(x, y) for x, y in zip(run(), expected))


def test_streams_do_not_disturb_each_other(device):
    """Many losses in flight on two streams: neither workspace nor ticket is shared."""
    logits = [tensor(300_000, dtype=torch.float32, device=device) for _ in range(2)]
    expected = [ganloss_fast.generator_loss(x, "bce") for x in logits]
    streams = [torch.cuda.Stream(device) for _ in range(2)]
    torch.cuda.synchronize(device)
    results = [[], []]
    for _ in range(50):
        for k, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                results[k].append(ganloss_fast.generator_loss(logits[k], "bce"))
    torch.cuda.synchronize(device)
    assert all(torch.equal(x, expected[k]) for k in range(2) for x in results[k])


def test_a_replay_disturbs_no_eager_call_beside_it(device):
    """They run on two streams at once: the ticket of a graph is its own."""
    with torch.cuda.device(device):
        logits = tensor(300_000, dtype=torch.float32, device=device).detach()
        expected = ganloss_fast.generator_loss(logits, "bce")
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        with torch.cuda.graph(graph):
            captured = ganloss_fast.generator_loss(logits, "bce")
        side.wait_stream(torch.cuda.current_stream())
        results = []
        for _ in range(50):
            with torch.cuda.stream(side):
                graph.replay()
            results.append(ganloss_fast.generator_loss(logits, "bce"))
        torch.cuda.synchronize(device)
        assert all(torch.equal(x, expected) for x in [*results, captured])


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_can_be_captured(device, loss):
    """Forward, inner gradient, penalty and backward in one graph, replayed on other inputs."""
    with torch.cuda.device(device):
        torch.manual_seed(0)
        critic = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(48, 32), torch.nn.Softplus(), torch.nn.Linear(32, 1)
        ).to(device)
        parameters = list(critic.parameters())
        real, fake = (torch.randn(16, 3, 4, 4, device=device) for _ in range(2))
        alpha = torch.rand(16, device=device)

        def step():
            value = ganloss_fast.discriminator_loss(critic(real), critic(fake), loss)
            value = value + ganloss_fast.gradient_penalty(critic, real, fake, alpha=alpha)
            return [value.detach(), *torch.autograd.grad(value, parameters)]

        graph, captured = capture(step)
        for _ in range(3):
            real.normal_()
            fake.normal_()
            graph.replay()
            for ours, expected in zip(captured, step()):
                torch.testing.assert_close(ours, expected)


def test_a_captured_noise_reads_a_new_seed_at_every_replay(device):
    with torch.cuda.device(device):
        x, seed = torch.randn(10_007, device=device), torch.tensor(1, device=device)
        graph, captured = capture(lambda: ops.perturb(x, 0.5, seed))
        for value in (2, 3):
            seed.fill_(value)
            graph.replay()
            assert torch.equal(captured, ops.perturb(x, 0.5, torch.tensor(value, device=device)))


def test_no_synchronisation(device):
    real, fake = (tensor(4, 1, 31, 31, dtype=torch.float32, device=device) for _ in range(2))
    mean, seed = torch.zeros((), device=device), torch.tensor(3, device=device)
    ganloss_fast.discriminator_loss(real, fake, "bce").backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = ganloss_fast.discriminator_loss(real, fake, "bce")
        (loss * mean).backward()
        ops.multi_tensor_loss([Segment(real, TERMS["squared"], b=mean)], with_statistics=True)
        ganloss_fast.interpolate(real, fake, alpha=torch.rand(4, device=device))
        ops.norm_penalty(real, "one_sided", 1.0, 1.0)[0].backward()
        ganloss_fast.perturb(real, 0.5, seed).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory < 24 * 2**30,
    reason="needs 24 GB of GPU memory",
)
def test_more_than_2_to_the_31_elements(device):
    a = torch.zeros(2**31 + 4099, device=device, dtype=torch.bfloat16)
    a[-1] = 1000.0
    a.requires_grad_()
    value = ops.multi_tensor_loss([Segment(a, TERMS["squared"], scale=float(a.numel()))]).total
    expected = (a.numel() - 1) * 0.0625 + (1000.0 - 0.25) ** 2
    assert value.item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(value, a)
    assert gradient[-1].item() == pytest.approx(2 * 999.75, rel=1e-2)
    assert gradient[-2].item() == pytest.approx(-0.5, rel=1e-2)
    del gradient
    seed = torch.tensor(7, device=device)
    moved = ops.perturb(a.detach(), 0.5, seed)[-4099:].double().cpu()
    blocks = 2**29 + torch.arange(1025)
    noise = normals_of_blocks(seed.cpu(), blocks, torch.float32).flatten()[:4099]
    expected = a[-4099:].detach().double().cpu() + 0.5 * noise.double()
    torch.testing.assert_close(moved, expected, rtol=4e-3, atol=1e-6)
