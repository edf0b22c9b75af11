"""The processes of one `torchrun`: who we are among them, waiting for each other, bringing results together.

Images are shared out, and rows of numbers exchanged over gloo, which any machine has, with or without GPUs. Of tensors
only the gradients of a training travel, over NCCL where every process has a GPU of its own. Without torchrun there is
one process, and nothing here does anything.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from dmps_cli.errors import DmpsError, SaidElsewhereError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


T = TypeVar("T")
_PATIENCE = timedelta(days=7)  # for the slowest rank; one that dies is noticed by torchrun, not by a time-out


def _number(name: str, default: int) -> int:
    """Returns a variable that torchrun sets.

    Others set some of them too, so its own TORCHELASTIC_RUN_ID must be there.
    """
    text = os.environ.get(name, "")
    return int(text) if re.fullmatch("[0-9]{1,9}", text) and "TORCHELASTIC_RUN_ID" in os.environ else default


def rank() -> int:
    """Returns our number among the processes, from 0; only rank 0 speaks."""
    return _number("RANK", 0)


def world_size() -> int:
    """Returns how many processes there are."""
    return _number("WORLD_SIZE", 1)


def restarts() -> int:
    """Returns how many times torchrun has started the processes again."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def own_device(device: torch.device) -> torch.device:
    """Returns the GPU of our number on this machine, where `cuda` is asked for without a number.

    Else the device itself.
    """
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
    except RuntimeError as exc:
        if not any(text in str(exc) for text in _PEER_LOST):
            raise
        raise common(DmpsError("another process of this run has ended; what it says is the reason")) from exc
    finally:
        processes.destroy_process_group()


_PEER_LOST = ("gloo/transport", "Connection closed by peer", "remote process exited")  # of gloo, and of NCCL


def common(error: DmpsError) -> DmpsError:
    """Returns the error, where every process meets the same one: only the first is to say it."""
    return SaidElsewhereError(str(error)) if rank() else error


def together(work: Callable[[], T]) -> T:
    """Returns what our `work` returns, once every process has done its own; inside `group`.

    If it fails with a DmpsError on one of them, it fails on all, and the first one that it failed on says why.
    """
    if world_size() == 1:
        return work()
    found: list[T] = []
    failure: DmpsError | None = None
    try:
        found.append(work())
    except DmpsError as exc:
        failure = exc
    failed = [number for number, is_well in enumerate(gather_rows([failure is None])) if not is_well]
    if not failed:
        return found[0]
    if failure is not None and failed[0] == rank():
        raise failure
    raise SaidElsewhereError(f"rank {failed[0]} could not go on")


def barrier() -> None:
    """Waits until every process has come here; inside `group`."""
    if world_size() > 1:
        import torch.distributed as processes

        processes.barrier()


def gather_rows(rows: list[T]) -> list[T]:
    """Returns the rows of all processes, by rank, on every one of them; inside `group`. They must be picklable."""
    if world_size() == 1:
        return rows
    import torch.distributed as processes

    everyone: list[list[T]] = [[] for _ in range(world_size())]
    processes.all_gather_object(everyone, rows)
    return [row for part in everyone for row in part]


def own_part(count: int) -> range:
    """Returns which of so many things are ours: each is one process's, in turn."""
    return range(rank(), count, world_size())


def summed(values: Tensor) -> Tensor:
    """Returns the sum of every process's values, the same bits on all of them; inside `group`. values: on the CPU."""
    if world_size() == 1:
        return values
    import torch.distributed as processes

    total = values.clone()
    processes.all_reduce(total)
    return total


def averaging(net: nn.Module, device: torch.device) -> nn.Module:
    """Returns the network, its gradients the mean over the processes once they have been computed; inside `group`.

    All begin with the first one's parameters. The network itself where there is one process.
    """
    if world_size() == 1:
        return net
    import torch.distributed as processes
    from torch.nn.parallel import DistributedDataParallel

    num_devices = len({*gather_rows([(socket.gethostname(), str(device))])})
    over_nccl = device.type == "cuda" and num_devices == world_size() and processes.is_nccl_available()
    link = processes.new_group(backend="nccl", timeout=_PATIENCE) if over_nccl else None
    return DistributedDataParallel(net, process_group=link, gradient_as_bucket_view=True)
