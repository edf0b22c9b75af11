"""Files of the command line: which are meant, and writing them whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dmps_cli.errors import DmpsError, InputError, OutputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")
STDIN = "-"


def expand_inputs(arguments: Sequence[str]) -> tuple[list[Path], list[tuple[str, DmpsError]]]:
    """(files, failures) that the arguments name, each file once, in order.

    A folder gives its pictures by name, not those of its subfolders; a glob that the shell left alone its matches; `-`
    the names on standard input, one a line. A failure is (argument, error).
    """
    found: dict[Path, None] = {}
    failures: list[tuple[str, DmpsError]] = []
    for argument in _with_stdin(arguments):
        try:
            found.update(dict.fromkeys(_expand(argument)))
        except DmpsError as exc:
            failures.append((argument, exc))
    return list(found), failures


def _with_stdin(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == STDIN:
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield argument


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        return pictures_in(path)
    if path.exists():
        return [path]
    if glob.has_magic(argument):
        matches = sorted(Path(match) for match in glob.glob(argument, recursive=True))  # noqa: PTH207 - absolute patterns
        if files := [match for match in matches if match.is_file()]:
            return files
        raise InputError(f"{argument} matches no file")
    raise InputError(f"{argument} does not exist")


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, by name. Raises InputError if there is none or it cannot be read."""
    try:
        pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    except OSError as exc:
        raise InputError(f"cannot read the folder {folder}: {exc.strerror}") from exc
    if not pictures:
        raise InputError(f"the folder {folder} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return pictures


def refuse_existing(*targets: Path) -> None:
    """Raises OutputError if one of the targets exists."""
    for target in targets:
        if os.path.lexists(target):
            raise OutputError(f"{target} exists; --overwrite replaces it")


def atomic_write(target: Path, content: bytes, *, overwrite: bool) -> None:
    """Writes a file whole or not at all; makes its folder.

    The content goes to a temporary file beside the target, to the disk, and only then to the name, so that no reader,
    crash or full disk meets half a file. Without `overwrite` an existing target stays as it is, even if it appeared a
    moment ago. A symbolic link is replaced, not followed. Raises OutputError.
    """
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not overwrite:
            refuse_existing(target)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:32]}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        _publish(temporary, target, overwrite=overwrite)
    except OSError as exc:
        raise OutputError(_reason(target, exc)) from exc
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)  # noqa: PTH108 - beside os.replace


def _publish(temporary: str, target: Path, *, overwrite: bool) -> None:
    """Gives the temporary file its name; link() fails where the name exists, replace() does not."""
    if target.is_dir():
        raise OutputError(f"{target} is a folder; name a file")
    if overwrite:
        os.replace(temporary, target)  # noqa: PTH105
        return
    try:
        os.link(temporary, target)  # noqa: PTH201
    except FileExistsError as exc:
        raise OutputError(f"{target} exists; --overwrite replaces it") from exc
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        refuse_existing(target)  # a file system without hard links: the check and the rename are two steps
        os.replace(temporary, target)  # noqa: PTH105


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _reason(target: Path, exc: OSError) -> str:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no room on the disk for {target}; free some and run again with --skip-existing"
    if isinstance(exc, (NotADirectoryError, FileExistsError)):
        return f"cannot write {target}: {target.parent} is not a folder"
    return f"cannot write {target}: {exc.strerror}"


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file. Raises InputError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc


def sha256_bytes(content: bytes) -> str:
    """Hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()
