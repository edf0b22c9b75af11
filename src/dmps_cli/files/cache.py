"""The folder of what is downloaded or computed once: where it is, one writer at a time, room on its disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from dmps_cli.errors import OutputError


def cache_dir() -> Path:
    """Returns the folder of downloaded files: DMPS_CACHE, else XDG_CACHE_HOME/dmps, else ~/.cache/dmps.

    It is not made. Raises OutputError where there is no home folder.
    """
    try:
        if named := os.environ.get("DMPS_CACHE"):
            return Path(named).expanduser().absolute()
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        if Path(xdg).is_absolute():  # the specification ignores others
            return Path(xdg) / "dmps"
        return Path.home() / ".cache" / "dmps"
    except RuntimeError as exc:
        raise OutputError("there is no home folder for the cache; name a folder with DMPS_CACHE") from exc


@contextlib.contextmanager
def locked(target: Path, note: Callable[[str], object]) -> Iterator[None]:
    """Lets one process at a time make `target`; its folder is made. The system frees the lock of a process that dies.

    note: told, in a sentence, that another process is waited for. Raises OutputError.
    """
    from filelock import FileLock, Timeout

    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f"{target.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            note(f"another process downloads {target.name}; waiting for it")
            lock.acquire()
    except OSError as exc:
        raise unwritable(folder, exc) from exc
    try:
        yield
    finally:
        lock.release()


def unwritable(folder: Path, exc: OSError) -> OutputError:
    """Returns the error for a cache that cannot be written, with what to do."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"no room on the disk for {folder}; free some and run again, the download goes on where it stopped"
        )
    in_the_way = isinstance(exc, (FileExistsError, NotADirectoryError))
    reason = "it, or what it lies in, is not a folder" if in_the_way else exc.strerror or exc
    return OutputError(f"cannot write to the cache {folder}: {reason}; name another folder with DMPS_CACHE")


def check_room(target: Path, needed: int) -> None:
    """Raises OutputError if fewer than `needed` bytes are free beside the target."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(target.parent).free
        if needed > free:
            raise OutputError(
                f"no room for {target}: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free; free some or "
                "name another folder with DMPS_CACHE"
            )
