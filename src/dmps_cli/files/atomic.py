"""Files written whole or not at all, names checked, hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from dmps_cli.errors import InputError, OutputError
from dmps_cli.files.reading import open_regular


def refuse_existing(*targets: Path) -> None:
    """Raises OutputError if one of the targets exists."""
    for target in targets:
        if os.path.lexists(target):
            raise _taken(target)


def _taken(target: Path) -> OutputError:
    return OutputError(f"{target} exists; --overwrite replaces it, --skip-existing leaves it")


def check_name(target: Path) -> None:
    """Raises OutputError for a name that the file system cannot have, before anything is computed for it."""
    try:
        os.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as exc:
        raise OutputError(_reason(target, exc)) from exc


def is_unicode(text: str) -> bool:
    """Returns whether it is text: names and arguments that are bytes of another encoding come with surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_writable(folder: Path) -> None:
    """Raises OutputError if files cannot be made in the folder, or the folder itself cannot be; makes nothing.

    A check to fail early; only writing tells (`atomic_write`).
    """
    existing = nearest_existing(folder)
    if not os.path.isdir(existing):  # noqa: PTH112 - False, not an error, without permission
        raise OutputError(f"cannot write to {folder}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {folder}: no permission to make files in {existing}")


def nearest_existing(path: Path) -> Path:
    """Returns the path or the nearest parent that exists; a dangling symbolic link counts as existing."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


_TEMPORARY = re.compile(r"(?P<beginning>\..+\.)[0-9a-f]+\.part", re.DOTALL)
_WHOLE_NAME = 200  # bytes of a target's name that leave room for what a temporary file's adds


def _temporary_beginning(target: Path) -> str:
    """Returns how the name of a file begins that `atomic_write` writes first, beside the target."""
    return f".{target.name if len(os.fsencode(target.name)) <= _WHOLE_NAME else target.name[:32]}."


def atomic_write(target: Path, content: bytes | Callable[[BinaryIO], object], *, overwrite: bool) -> None:
    """Writes a file whole or not at all; makes its folder. content: the bytes, or what writes them to a file.

    The content goes to a temporary file beside the target, to the disk, and only then to the name, so that no reader,
    crash or full disk meets half a file; the temporary file goes whatever happens, Ctrl-C included, and after a kill by
    `remove_left_overs`. Without `overwrite` an existing target stays as it is, even if it appeared a moment ago. A
    symbolic link is replaced, not followed. The file's mode is that of any new file (umask). Raises OutputError.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not overwrite:
            refuse_existing(target)
        with _temporary_file(target) as (file, temporary):
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()  # an open file cannot be given another name there
            _publish(temporary, target, overwrite=overwrite)
    except OSError as exc:
        raise OutputError(_reason(target, exc)) from exc


@contextlib.contextmanager
def _temporary_file(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yields a new file beside the target and its path, locked while we have it; in the end it goes, if still there."""
    path = target.parent / f"{_temporary_beginning(target)}{secrets.token_hex(8)}.part"
    file = path.open("xb")
    try:
        if try_lock(file) is False or not os.fstat(file.fileno()).st_nlink:  # a run that clears up had it first
            with _temporary_file(target) as another:
                yield another
        else:
            yield file, path
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        with contextlib.suppress(OSError):  # what could not be written is said already
            file.close()


def try_lock(file: BinaryIO) -> bool | None:
    """Returns whether the file is locked for us now, until it is closed or we are dead.

    None where files have no locks.
    """
    try:
        from filelock import lock_descriptor

        return lock_descriptor(file.fileno(), blocking=False)
    except (ImportError, OSError):  # an older filelock, beside a torch to which nothing was added
        return None


def remove_left_overs(targets: Iterable[Path]) -> None:
    """Removes the temporary files of killed runs that began to write these targets."""
    beginnings: dict[Path, set[str]] = {}
    for target in targets:
        beginnings.setdefault(target.parent, set()).add(_temporary_beginning(target))
    for folder, own in beginnings.items():
        _remove_dead(folder, lambda beginning, own=own: beginning in own)  # type: ignore[misc]


def remove_left_overs_below(folder: Path) -> None:
    """Removes the temporary files of killed runs in a folder whose files are all ours, and in its subfolders."""
    for place, _, _ in os.walk(folder):
        _remove_dead(Path(place), lambda beginning: True)


def _remove_dead(folder: Path, is_own: Callable[[str], bool]) -> None:
    """Removes files of a folder that are named as our temporary ones and that no process holds."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - names alone
            found = _TEMPORARY.fullmatch(name)
            if found and is_own(found["beginning"]):
                with contextlib.suppress(OSError):
                    _remove_if_dead(folder / name)


def _remove_if_dead(path: Path) -> None:
    # the lock of whoever writes it is free once that process is dead; we hold it until the name is gone
    with open(path, "r+b", opener=_plain_file) as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and try_lock(file):
            if sys.platform == "win32":
                file.close()  # an open file cannot be removed there
            path.unlink()


def _plain_file(path: str, flags: int) -> int:
    """Opens without following a link and without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def write_together(contents: Mapping[Path, bytes], *, overwrite: bool) -> None:
    """Writes files that belong together, in their order, each whole.

    If one cannot be written, those before it that were not there go again. Raises OutputError.
    """
    new: list[Path] = []
    try:
        for path, content in contents.items():
            is_new = not os.path.lexists(path)
            atomic_write(path, content, overwrite=overwrite)
            new += [path] * is_new
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise


def _publish(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Gives the temporary file its name; link() fails where the name exists, replace() does not."""
    if target.is_dir() and not target.is_symlink():
        raise OutputError(f"{target} is a folder; name a file")
    if overwrite:
        temporary.replace(target)
        return
    try:
        target.hardlink_to(temporary)
    except FileExistsError as exc:
        raise _taken(target) from exc
    except OSError:  # a file system without hard links, or a name that open() refuses as well
        _reserve_and_replace(temporary, target)


def _reserve_and_replace(temporary: Path, target: Path) -> None:
    """Publishes without link(), in two steps: of several writers one makes the file, empty, and replaces it.

    A reader may meet the empty one.
    """
    try:
        target.open("xb").close()
    except FileExistsError as exc:
        raise _taken(target) from exc
    try:
        temporary.replace(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _reason(target: Path, exc: OSError) -> str:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no room on the disk for {target}; free some and run again"
    if isinstance(exc, (NotADirectoryError, FileExistsError)):
        return f"cannot write {target}: {nearest_existing(target.parent)} is not a folder"
    return f"cannot write {target}: {exc.strerror or exc}"


def sha256_file(path: Path, told: Callable[[int], object] = int, *, limit: int | None = None) -> str:
    """Returns the hexadecimal sha256 of a file of at most `limit` bytes; told: the bytes done, now and then.

    Raises InputError if it cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    try:
        with open_regular(path, limit=limit) as file:
            while block := file.read(2**20):  # None where the system would make us wait: not file_digest(), which loops
                digest.update(block)
                told(done := done + len(block))
            return digest.hexdigest()
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc


def sha256_bytes(content: bytes) -> str:
    """Returns the hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()


def content_key(content: bytes) -> int:
    """Returns a number for what something is, wherever it stands: the first 48 bits of its sha256."""
    return int.from_bytes(hashlib.sha256(content).digest()[:6], "big")


def short_key(identity: object) -> str:
    """Returns what tells the names of two files apart: the first hexadecimal digits of the sha256 of a value's repr."""
    return sha256_bytes(repr(identity).encode(errors="surrogateescape"))[:8]


def name_key(name: str) -> int:
    """Returns the number of a picture's name, which is its path relative to its folder."""
    return content_key(os.fsencode(name))
