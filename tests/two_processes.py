"""Work in two processes that reach each other by gloo."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD = 2


def _process(rank: int, folder: str, work: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # whatever networks there are
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    torch.save(work(rank), Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def in_two_processes(work: Callable[[int], Any]) -> list[Any]:
    """What ``work(rank)``, a function of a module, returns in each of them: tensors and plain
    values. An error in one ends both, and is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_process, (folder, work), nprocs=WORLD)
        return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(WORLD)]
