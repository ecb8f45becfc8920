"""Gradient penalties against hand-written PyTorch: FLOPs, time, memory, overhead.

    python -m benchmarks.penalties              the tables
    python -m benchmarks.penalties --compiled   also torch.compile (minutes)

One thread; stock and ours alternate, so that a slow minute hits both; medians of processor time.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import ganloss_fast as gf
from ganloss_fast.diagnose import CountFlops
from ganloss_fast.graph_cut import cut

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import critics  # those of the test suite

# name: critic, shape of its samples
CRITICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "DCGAN, leaky ReLU": (lambda: critics.dcgan(32, 64), (4, 3, 64, 64)),
    "ResNet, spectral norm": (lambda: critics.SpectralResNet(32, 32), (8, 3, 32, 32)),
    "HiFi-GAN period D, weight norm": (lambda: critics.HifiGanPeriod(16), (2, 1, 8192)),
    "StyleGAN2, no mini-batch stddev": (lambda: critics.StyleGan2(16, 64), (4, 3, 64, 64)),
    "PatchGAN, InstanceNorm": (lambda: critics.patchgan(32), (4, 3, 64, 64)),
}


def stock_penalty(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """The penalty as every WGAN-GP codebase writes it."""
    a = alpha.view(-1, *[1] * (real.dim() - 1))
    x_hat = (a * real + (1 - a) * fake).requires_grad_(True)
    logits = critic(x_hat)
    (gradient,) = torch.autograd.grad(logits, x_hat, torch.ones_like(logits), create_graph=True)
    return 10 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def our_penalty(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    return gf.gradient_penalty(critic, real, fake, alpha=alpha)


def wasserstein_step(penalty: Callable) -> Callable:
    def step(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
        loss = critic(fake).mean() - critic(real).mean()
        return loss + penalty(critic, real, fake, alpha)

    return step


def one_forward_step(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """Fake and real in one forward; the penalty apart, which is cheaper than all three in one."""
    fake_logits, real_logits = critic(torch.cat([fake, real])).chunk(2)
    loss = fake_logits.mean() - real_logits.mean()
    return loss + our_penalty(critic, real, fake, alpha)


def timed(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def ratio(stock: Callable[[], object], ours: Callable[[], object], rounds: int) -> tuple:
    """Median times of both in ms, and the median of the ratios of neighbours."""
    for function in (stock, ours, stock, ours):
        function()
    pairs = [(timed(stock), timed(ours)) for _ in range(rounds)]
    times = [1e3 * median(column) for column in zip(*pairs)]
    return (*times, median(a / b for a, b in pairs))


def inputs_of(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    real, fake = torch.randn(2, *shape).unbind()
    return real, fake, torch.rand(shape[0])


def backward_of(step: Callable, critic: nn.Module, inputs: tuple) -> Callable[[], None]:
    def run() -> None:
        critic.zero_grad()
        step(critic, *inputs).backward()

    return run


def flops(function: Callable[[], object]) -> int:
    with CountFlops() as counter:
        function()
    return counter.total


def penalty_table(rounds: int) -> None:
    print(
        f"{'critic':34}{'x forward':>16}{'penalty ms':>18}{'ratio':>7}{'step ms':>18}{'ratio':>7}"
    )
    for name, (make, shape) in CRITICS.items():
        torch.manual_seed(0)
        critic = make()
        inputs = inputs_of(shape)
        with torch.no_grad():
            forward = flops(lambda: critic(inputs[0]))  # noqa: B023 (called here)
        stock, ours = (backward_of(f, critic, inputs) for f in (stock_penalty, our_penalty))
        counts = f"{flops(stock) / forward:.2f} -> {flops(ours) / forward:.2f}"
        a, b, penalty_ratio = ratio(stock, ours, rounds)
        steps = (
            backward_of(wasserstein_step(f), critic, inputs) for f in (stock_penalty, our_penalty)
        )
        c, d, step_ratio = ratio(*steps, rounds)
        print(
            f"{name:34}{counts:>16}{a:9.1f}{b:9.1f}{penalty_ratio:7.2f}"
            f"{c:9.1f}{d:9.1f}{step_ratio:7.2f}",
            flush=True,
        )


def one_forward_row(rounds: int) -> None:
    make, shape = CRITICS["DCGAN, leaky ReLU"]
    critic, inputs = make(), inputs_of(shape)
    stock = backward_of(wasserstein_step(stock_penalty), critic, inputs)
    ours = backward_of(one_forward_step, critic, inputs)
    a, b, step_ratio = ratio(stock, ours, rounds)
    print(f"\nDCGAN, cat(fake, real) + penalty: {a:.1f} -> {b:.1f} ms, ratio {step_ratio:.2f}")


def overhead_row(rounds: int) -> None:
    """The walk over the graph of a critic with about 250 nodes."""
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        *(layer for _ in range(42) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.LeakyReLU(0.2))),
        nn.Conv2d(4, 1, 3),
    )
    times = []
    nodes = 0
    for _ in range(rounds):
        x = torch.randn(1, 3, 8, 8, requires_grad=True)
        grads = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        begin = time.perf_counter()
        result = cut(list(grads))
        times.append(1e6 * (time.perf_counter() - begin))
        nodes = result.nodes
    print(f"Graph walk: {median(times):.0f} us for {nodes} nodes, {result.cut} edges cut")


def peak_memory(function: Callable[[], object]) -> float:
    """MB at the peak of the allocator, above what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as result:
        function()
    level = peak = 0
    for event in result.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    return peak / 2**20


def memory_row() -> None:
    critic = critics.dcgan(16, 256)
    x = torch.randn(16, 3, 256, 256)

    def run(chunk_size: int | None) -> None:
        critic.zero_grad()
        gf.r1_penalty(critic, x, chunk_size=chunk_size).backward()

    run(None)
    run(2)
    whole, slices = (peak_memory(lambda size=size: run(size)) for size in (None, 2))
    print(f"Peak memory at 16 x 3 x 256 x 256: whole {whole:.0f} MB, chunk_size=2 {slices:.0f} MB")
    times = ratio(lambda: run(None), lambda: run(2), 3)
    print(f"  time: {times[0]:.0f} -> {times[1]:.0f} ms; nothing is computed twice")


def functional_penalty(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """Written by hand in the form that torch.compile takes."""
    a = alpha.view(-1, *[1] * (real.dim() - 1))
    gradient = torch.func.grad(lambda x: critic(x).sum())(a * real + (1 - a) * fake)
    return 10 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def compiled_rows(rounds: int) -> None:
    """What a user can run for a critic that is not compiled itself, from stock to ours."""
    make, shape = CRITICS["DCGAN, leaky ReLU"]
    inputs = inputs_of(shape)
    variants: dict[str, tuple[Callable, dict | None]] = {
        "eager, by hand": (stock_penalty, None),
        "eager, ours": (our_penalty, None),
        "compiled, by hand": (functional_penalty, {}),
        "compiled, ours without the pass": (our_penalty, {}),
        "compiled, ours": (our_penalty, gf.compile_options()),
    }
    for label, wrap in (("penalty step", lambda f: f), ("WGAN-GP step", wasserstein_step)):
        steps = []
        for penalty, options in variants.values():
            critic, step = copy.deepcopy(make()), wrap(penalty)
            if options is not None:
                step = compiled(step, critic, options)
            steps.append(backward_of(step, critic, inputs))
        for step in steps * 2:
            step()
        times = [[timed(step) for step in steps] for _ in range(rounds)]
        best = median(line[-1] for line in times)
        print(f"\n{label}, DCGAN")
        for name, column in zip(variants, zip(*times)):
            print(f"  {name:34}{1e3 * median(column):7.1f} ms{median(column) / best:7.2f}x")


def compiled(step: Callable, critic: nn.Module, options: dict) -> Callable:
    """The step with its critic as a constant, as a training loop has it."""
    run = torch.compile(lambda r, f, a: step(critic, r, f, a), fullgraph=True, options=options)
    return lambda _, r, f, a: run(r, f, a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compiled", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {arguments.rounds} rounds, processor time\n")
    penalty_table(arguments.rounds)
    one_forward_row(arguments.rounds)
    overhead_row(40)
    memory_row()
    if arguments.compiled:
        compiled_rows(arguments.rounds)


if __name__ == "__main__":
    main()
