"""The processes of one `torchrun`: who we are among them, waiting for each other, bringing results together.

Images are shared out, tensors never travel: what is exchanged are rows of numbers, over gloo, which any machine has,
with or without GPUs. Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_PATIENCE = timedelta(days=7)  # for the slowest rank; one that dies is noticed by torchrun, not by a time-out


def _number(name: str, default: int) -> int:
    """A variable that torchrun sets; others set some of them too, so its own TORCHELASTIC_RUN_ID must be there."""
    text = os.environ.get(name, "")
    return int(text) if re.fullmatch("[0-9]{1,9}", text) and "TORCHELASTIC_RUN_ID" in os.environ else default


def rank() -> int:
    """Our number among the processes, from 0; only rank 0 speaks."""
    return _number("RANK", 0)


def world_size() -> int:
    """How many processes there are."""
    return _number("WORLD_SIZE", 1)


def restarts() -> int:
    """How many times torchrun has started the processes again."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def own_device(device: torch.device) -> torch.device:
    """The GPU of our number on this machine, where `cuda` is asked for without a number; else the device itself."""
    import torch

    if world_size() == 1 or device.type != "cuda" or device.index is not None:
        return device
    own = torch.device("cuda", _number("LOCAL_RANK", 0) % torch.cuda.device_count())
    torch.cuda.set_device(own)
    return own


@contextmanager
def group() -> Iterator[None]:
    """Joins the other processes while it is open."""
    if world_size() == 1:
        yield
        return
    import torch.distributed as processes
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, own_rank, size = next(rendezvous("env://", timeout=_PATIENCE))
    # torchrun keeps its store over a restart, and in it the addresses of processes that are dead
    fresh = PrefixStore(f"dmps/{restarts()}/{size}", store)
    processes.init_process_group("gloo", store=fresh, rank=own_rank, world_size=size, timeout=_PATIENCE)
    try:
        yield
    finally:
        processes.destroy_process_group()


def barrier() -> None:
    """Waits until every process has come here; inside `group`."""
    if world_size() > 1:
        import torch.distributed as processes

        processes.barrier()


def gather_rows(rows: list[T]) -> list[T]:
    """The rows of all processes, by rank, on every one of them; inside `group`. They must be picklable."""
    if world_size() == 1:
        return rows
    import torch.distributed as processes

    everyone: list[list[T]] = [[] for _ in range(world_size())]
    processes.all_gather_object(everyone, rows)
    return [row for part in everyone for row in part]
