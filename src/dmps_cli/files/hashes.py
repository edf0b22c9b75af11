"""The sha256 of files: read through once, then known by size and time; compared with what it must be."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from dmps_cli.errors import InputError, OutputError, WeightsError
from dmps_cli.files.atomic import atomic_write, sha256_bytes, sha256_file
from dmps_cli.files.cache import cache_dir, unwritable
from dmps_cli.files.reading import read_bytes
from dmps_cli.files.records import RecordError, Sha256, as_record, parse_json
from dmps_cli.listener import SILENT, Listener

LARGE = 2**26
"""Bytes from which on a file's sha256 is noted: 64 MiB are read through in a few hundredths of a second."""


@dataclass(frozen=True, kw_only=True)
class Noted:
    """What is known of a file. source: whence it came. size and mtime_ns tell whether it is still that file."""

    sha256: Sha256
    source: str
    size: int
    mtime_ns: int

    def is_of(self, stat: os.stat_result) -> bool:
        """Returns whether the file has not changed since."""
        return (self.size, self.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def note_of(target: Path) -> Path:
    """Returns where it is noted what is known of a file in the cache: beside it."""
    return target.with_name(f"{target.name}.json")


def read_note(path: Path) -> Noted | None:
    """Returns what is noted, or None if there is nothing that can be read."""
    try:
        return as_record(parse_json(read_bytes(path)), Noted)
    except (OSError, RecordError):
        return None


def write_note(path: Path, digest: str, source: str, stat: os.stat_result) -> None:
    """Notes the hash of a file. Raises OutputError."""
    noted = Noted(sha256=digest, source=source, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
    write_record(path, asdict(noted))


def write_record(path: Path, record: dict[str, object]) -> None:
    """Writes JSON into the cache, whole or not at all. Raises OutputError, which names the cache."""
    try:
        atomic_write(path, json.dumps(record).encode(), overwrite=True)
    except OutputError as exc:
        if isinstance(exc.__cause__, OSError):
            raise unwritable(path.parent, exc.__cause__) from exc
        raise


def known_sha256(path: Path, listener: Listener = SILENT) -> str:
    """Returns the sha256 of a file that lies anywhere; a large one is read through only when it is new or has changed.

    listener: is shown how far. Raises InputError if it cannot be read.
    """
    stat = stat_of(path)
    if stat.st_size < LARGE:
        return sha256_file(path)
    note = cache_dir() / "hashes" / f"{sha256_bytes(os.fsencode(path.absolute()))[:16]}.json"
    noted = read_note(note)
    if noted is not None and noted.is_of(stat):
        return noted.sha256
    digest = read_through(path, stat.st_size, listener)
    with contextlib.suppress(OutputError):  # a cache that cannot be written only costs time
        write_note(note, digest, str(path), stat)
    return digest


def read_through(path: Path, size: int, listener: Listener) -> str:
    """Returns the sha256 of a file; of a large one it is shown how far."""
    if size < LARGE:
        return sha256_file(path)
    with listener.transfer(f"sha256 of {path.name}") as told:
        return sha256_file(path, lambda done: told(done, size))


def verify(path: Path, size: int | None = None, sha256: str | None = None, listener: Listener = SILENT) -> str:
    """Returns the sha256 of a file, read through and compared.

    size: in bytes. sha256: what it must be; None: what was noted at the download. Raises WeightsError if it is
    another, InputError if the file cannot be read.
    """
    found = stat_of(path).st_size
    check_size(path, found, size)
    digest = read_through(path, found, listener)
    check_digest(path, digest, sha256.lower() if sha256 else None)
    return digest


def stat_of(path: Path) -> os.stat_result:
    """Returns size and times. Raises InputError."""
    try:
        return path.stat()
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc


def check_size(path: Path, found: int, size: int | None) -> None:
    """Raises WeightsError for another size than is due."""
    if size not in (None, found):
        raise WeightsError(f"{path} has {found} bytes, {size} are due; delete it and run again")


def check_digest(path: Path, digest: str, sha256: str | None) -> None:
    """Raises WeightsError for another sha256 than is due, or, where none is known, than was first downloaded."""
    if sha256 not in (None, digest):
        raise WeightsError(f"{path}: the file's sha256 is {digest}, {sha256} is due; delete it and run again")
    noted = read_note(note_of(path))
    if sha256 is None and noted is not None and noted.sha256 != digest:
        raise WeightsError(
            f"{path}: the file's sha256 is {digest}, it was {noted.sha256} when it was first downloaded; delete it "
            f"and run again, or delete {note_of(path)} if the new file is right"
        )
