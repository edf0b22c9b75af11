"""Files that are read: regular ones only, of a plausible size, and below the folder that they belong to."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from dmps_cli.errors import DmpsError, InputError

if TYPE_CHECKING:
    import numpy as np


MAX_TEXT = 2**24
"""Bytes of a text that is read whole: a sidecar's mask of a hundred million random pixels takes fewer."""

MAX_LOG = 2**30
"""Bytes of a file that grows by a line for each result."""

MAX_PICTURE = 2**32
"""Bytes of a picture or of an array of one: what float32 takes of the most pixels that are read, and a third more."""

_SHOWN = 160  # characters of a decoder's own words

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path, *, limit: int | None = None) -> BufferedReader:
    """Opens a regular file, or a link to one, for reading; nothing else is waited for, and a device is not touched.

    limit: of its size, in bytes. Raises OSError, as opening does anyway, with a strerror that says what else it is.
    """
    try:
        _check(path, path.stat(), limit)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as exc:  # a NUL in the name, or what stands for no byte
        raise OSError(errno.EINVAL, "no file can have that name", str(path)) from exc
    try:
        _check(path, os.fstat(descriptor), limit)  # what has that name now
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def check_regular(path: Path, *, limit: int | None = None) -> None:
    """Raises OSError, as `open_regular`, for what is no regular file: for readers that open files themselves."""
    open_regular(path, limit=limit).close()


def read_bytes(path: Path, limit: int = MAX_TEXT) -> bytes:
    """Returns what a regular file holds, if that is no more than `limit` bytes. Raises OSError."""
    with open_regular(path, limit=limit) as file:
        content = file.read(limit + 1)
    if len(content) > limit:  # it has grown, or told no size
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
    return content


def _check(path: Path, status: os.stat_result, limit: int | None) -> None:
    """Raises OSError for what is no regular file, or larger than the limit."""
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        number = errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL
        raise OSError(number, f"it is {_KINDS.get(kind, 'something else')}, not a regular file", str(path))
    if limit is not None and status.st_size > limit:
        raise OSError(errno.EFBIG, f"it has {status.st_size} bytes; at most {limit} are read", str(path))


@contextmanager
def decoding(path: object, error: type[DmpsError] = InputError) -> Iterator[None]:
    """Turns whatever a decoder of others raises on bytes that it cannot read into one line about the file.

    path: the file, or what else they are. To be put around the decoder alone: a mistake of ours within would be called
    damage. Too little memory stays that.
    """
    try:
        yield
    except (DmpsError, MemoryError):
        raise
    except OSError as exc:
        reason = exc.strerror if exc.errno else f"the file is damaged ({_line(exc)})"
        raise error(f"cannot read {path}: {reason}") from exc
    except Exception as exc:
        raise error(f"cannot read {path}: the file is damaged ({_line(exc)})") from exc


def _line(exc: Exception) -> str:
    """Returns what an error says, on one line."""
    text = " ".join(str(exc).split()) or type(exc).__name__
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def load_array(path: Path) -> np.ndarray:
    """Returns the array of a .npy file; nothing in it is run, and no more memory is taken than its numbers fill.

    Raises InputError for what is no such file, damaged, or shorter than its header claims.
    """
    import numpy as np

    npy = np.lib.format
    with decoding(path), open_regular(path) as file:
        if file.peek(len(npy.MAGIC_PREFIX))[: len(npy.MAGIC_PREFIX)] != npy.MAGIC_PREFIX:
            raise InputError(f"cannot read {path}: it is not a NumPy array file, as np.save writes them")
        readers = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}
        major, _ = npy.read_magic(file)
        if major not in readers:  # 3 is for records with names in Unicode
            raise InputError(f"{path} holds records; it must be one array of numbers")
        shape, _, dtype = readers[major](file)
        claimed, there = math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size - file.tell()
        if min(shape, default=0) < 0 or claimed > there:
            raise InputError(f"cannot read {path}: its header claims {claimed} bytes of numbers, there are {there}")
        file.seek(0)
        return np.asarray(np.load(file, allow_pickle=False))


def inside(folder: Path, name: str | os.PathLike[str]) -> Path:
    """Returns the path of that name below a folder.

    Raises InputError if the name, or a link on the way, leads out of it.
    """
    path = folder / name
    try:
        root, place = os.path.realpath(folder), os.path.realpath(path)
    except ValueError as exc:
        raise InputError(f"{path}: no file can have that name") from exc
    if os.path.commonpath([root, place]) != root or root == place:
        raise InputError(f"{path} leads out of {folder}; what belongs to a folder lies in it")
    return path
