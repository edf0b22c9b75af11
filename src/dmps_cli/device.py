"""The machine: allocator, devices, floating-point types, clocks, peak memory."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from dmps_cli.errors import MemoryShortageError, UsageError

# glibc mallopt's parameters (malloc.h)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_KEEP_BYTES = 2**31 - 1
_LARGE_BYTES = 2**16
_CGROUP = Path("/sys/fs/cgroup")


def tune_allocator() -> bool:
    """Lets the process keep the memory that a network's layers free, instead of returning it to the system.

    By default glibc maps every large tensor afresh and unmaps it after use, and the kernel then clears
    each page again: up to half the time of a convolutional network on a CPU (docs/speed.md). To be called
    before the first large allocation. True where it took effect (Linux with glibc), False elsewhere.
    """
    return _mallopt({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _KEEP_BYTES, _M_ARENA_MAX: 1})


def return_freed_memory() -> bool:
    """Does the opposite: what is freed goes back to the system at once, so that resident pages are those in use.

    For measurements of memory alone. True where it took effect (Linux with glibc), False elsewhere.
    """
    is_set = _mallopt({_M_MMAP_THRESHOLD: _LARGE_BYTES, _M_MMAP_MAX: _KEEP_BYTES, _M_TRIM_THRESHOLD: 0})
    if is_set:
        ctypes.CDLL(None).malloc_trim(0)
    return is_set


def _mallopt(settings: Mapping[int, int]) -> bool:
    """Sets parameters of glibc's allocator; False where there is none, or one was refused."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    results = [mallopt(parameter, value) for parameter, value in settings.items()]  # every one is to be tried
    return all(result == 1 for result in results)


def resolve_device(name: str) -> torch.device:
    """Returns the device of that name.

    'auto' is the first of cuda, mps, cpu that is there. Raises UsageError if it is not.
    """
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; --dtype asks for less
    available = [f"cuda:{k}" for k in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    available += ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name == "auto":
        return torch.device(available[0].removesuffix(":0"))
    if (f"{name}:0" if name == "cuda" else name) not in available:
        raise UsageError(f"device '{name}' is not available here; there is {', '.join(available)}")
    return torch.device(name)


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def has_fast_bfloat16(device: torch.device) -> bool:
    """Returns whether the device multiplies matrices in bfloat16 faster than in float32, as far as torch says."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask() for ask in asked if ask is not None)


def micro_batch(device: torch.device, batch_size: int) -> int:
    """Returns how many images are computed together.

    One on a CPU, so that an image's bits never depend on its company.
    """
    return 1 if device.type == "cpu" else batch_size


def synchronize(device: torch.device) -> None:
    """Waits for the work queued on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def onto(value: Tensor, device: torch.device) -> Tensor:
    """Puts a tensor of the CPU on the device; a GPU fetches it while the CPU goes on."""
    if device.type != "cuda" or value.device.type != "cpu":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)  # torch keeps the pinned copy until it has been fetched


def stopwatch(device: torch.device) -> Callable[[], float]:
    """Starts a clock; the function returned gives the seconds since, queued work included."""
    synchronize(device)
    start = time.perf_counter()

    def elapsed() -> float:
        synchronize(device)
        return time.perf_counter() - start

    return elapsed


def peak_mib(device: torch.device) -> float:
    """Returns the peak memory so far in MiB: of the device on CUDA, of the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return _windows_peak_bytes() / 2**20
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if sys.platform == "win32":

    class _MemoryCounters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS (psapi.h): two DWORDs, then eight SIZE_T."""

        _fields_ = [("cb", ctypes.c_uint32), ("faults", ctypes.c_uint32), ("peak_working_set", ctypes.c_size_t)] + [
            (f"other{k}", ctypes.c_size_t) for k in range(7)
        ]

    def _windows_peak_bytes() -> int:
        """Returns the largest working set of this process so far, bytes."""
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel32.GetCurrentProcess.restype = ctypes.c_void_p
        ask = kernel32.K32GetProcessMemoryInfo
        ask.argtypes = [ctypes.c_void_p, ctypes.POINTER(_MemoryCounters), ctypes.c_uint32]
        counters = _MemoryCounters(cb=ctypes.sizeof(_MemoryCounters))
        if not ask(kernel32.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
            raise ctypes.WinError(ctypes.get_last_error())
        return int(counters.peak_working_set)


def free_bytes(device: torch.device) -> int | None:
    """Returns the memory that is free for a new tensor, bytes; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        fields = dict(line.split(":", maxsplit=1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 2**10
    except (OSError, KeyError, ValueError):
        return None
    with suppress(OSError, ValueError):  # a container's own limit; it says `max` where there is none
        limit, used = (int((_CGROUP / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
        free = min(free, max(limit - used, 0))
    return free


def check_memory(
    needed: float | None,
    count: int,
    device: torch.device,
    what: str,
    advice: str,
) -> None:
    """Raises MemoryShortageError if `count` times the bytes needed are not free; nothing where either is not known.

    Linux promises more memory than it has, and kills the process that takes it at its word.
    """
    free = free_bytes(device)
    if needed is None or free is None or count * needed <= free:
        return
    raise MemoryShortageError(
        f"{what} would take about {count * needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} are free; {advice}"
    )


def describe(device: torch.device) -> str:
    """Returns the name of the device for tables: the GPU's, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} ({threads} thread{'s' * (threads != 1)})" if device.type == "cpu" else device.type
