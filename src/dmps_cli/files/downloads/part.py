"""A download under way, on the disk."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from dmps_cli.files.atomic import short_key
from dmps_cli.files.cache import unwritable
from dmps_cli.files.downloads.sources import Source
from dmps_cli.files.hashes import write_record
from dmps_cli.files.reading import read_bytes
from dmps_cli.files.records import RecordError, Sha256, as_record, parse_json
from dmps_cli.listener import Told


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server says of a file. validator: its ETag or Last-Modified, by which it knows the version."""

    total: int | None
    validator: str | None
    sha256: Sha256 | None


@dataclass(frozen=True)
class Part:
    """A download under way: its bytes, and beside them what the server said of the file that they belong to."""

    path: Path

    @classmethod
    def of(cls, target: Path, source: Source) -> Part:
        """Returns one for each source: what one has begun, another must not go on with."""
        return cls(target.with_name(f"{target.name}.{short_key(source)}.part"))

    @property
    def _notes(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def state(self) -> tuple[int, Answer | None]:
        """Returns (bytes that can be gone on with, whose they are); (0, None) if the version is not known."""
        try:
            size, answer = self.path.stat().st_size, as_record(parse_json(read_bytes(self._notes)), Answer)
        except (OSError, RecordError):
            return 0, None
        fits = answer.validator is not None and (answer.total is None or size <= answer.total)
        return (size, answer) if size and fits else (0, None)

    def drop(self) -> None:
        """Forgets what was begun."""
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def write(self, chunks: Iterator[bytes], offset: int, answer: Answer, tell: Told) -> None:
        """Writes from `offset` on, to the disk. Raises OutputError.

        Emptied before the server's word on another version is noted: a crash between must not join the two.
        """
        try:
            if not offset:
                self.path.write_bytes(b"")
                write_record(self._notes, asdict(answer))
            done = offset
            with self.path.open("r+b") as file:
                file.seek(offset)
                for chunk in chunks:
                    file.write(chunk)
                    done += len(chunk)
                    tell(done, answer.total)
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise unwritable(self.path.parent, exc) from exc


def remove_parts(target: Path) -> None:
    """Removes what was begun of a target, from whichever source."""
    for part in target.parent.glob(f"{glob.escape(target.name)}.{'?' * 8}.part*"):
        part.unlink(missing_ok=True)
