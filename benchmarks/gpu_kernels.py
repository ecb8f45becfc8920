"""Runs each of the six main kernels once on 64M elements, for a profiler to look at.

ncu --metrics dram__bytes.sum.per_second python -m benchmarks.gpu_kernels
"""

from __future__ import annotations

import torch

from ganloss_fast import ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment


def main() -> None:
    torch.manual_seed(0)
    device, n = torch.device("cuda"), 1 << 26
    a, b = (torch.randn(n, device=device, requires_grad=True) for _ in range(2))
    total = ops.multi_tensor_loss([Segment(a, terms.softplus(-1.0), b=b)]).total  # 1
    torch.autograd.grad(total, (a, b))  # 2

    gradient = torch.randn(16, n >> 4, device=device, requires_grad=True)
    penalty = ops.norm_penalty(gradient, "two_sided", 1.0, 10.0)[0]  # 3
    (first,) = torch.autograd.grad(penalty, gradient, create_graph=True)  # 4
    torch.autograd.grad(first, gradient, torch.randn_like(first))  # 5

    real, fake = a.detach().view(16, -1), b.detach().view(16, -1)
    ops.interpolate(real, fake, torch.rand(16, device=device))  # 6
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
