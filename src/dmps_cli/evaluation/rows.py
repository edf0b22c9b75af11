"""Rows of an evaluation: one for each restoration, and the files that grow by them.

rows.jsonl grows by whole lines, one JSON object each, that are on the disk before the next restoration begins: an
evaluation that is killed goes on where it was. Each process has a file of its own (rows.RANK.jsonl, rows.IofN.jsonl):
appends of several to one file are not atomic on network file systems. A reader takes all of them. Only quality and
time differ between rows of equal keys: see `row_key`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from msgspec import Meta, defstruct

from dmps_cli.checks import MAX_SAMPLES
from dmps_cli.errors import InputError, OutputError
from dmps_cli.files.atomic import try_lock
from dmps_cli.files.reading import MAX_LOG, check_regular, inside, read_bytes
from dmps_cli.files.records import Label, RecordError, RelativePath, as_record, form, one_of, parse_json
from dmps_cli.levels import SAMPLERS, SPACINGS
from dmps_cli.methods.choice import of_today
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.table import METHODS
from dmps_cli.metrics.protocol import OF_SAMPLES
from dmps_cli.metrics.table import METRICS
from dmps_cli.tasks.rows import OWN, TASKS
from dmps_cli.units import MAX_SIGMA

Row = dict[str, Any]
MEASURED = {*METRICS, *OF_SAMPLES, "seconds"}
"""Columns that say what came out; all others say of what."""

KnownTask = Annotated[
    str,
    form(
        f"one of {', '.join((*TASKS, *OWN))}, or several with bars between",
        rf"{'|'.join((*TASKS, *OWN))}|[^\x00-\x1f]*[(|][^\x00-\x1f]*",
    ),
]
SigmaY = Annotated[float, Meta(ge=0.0, le=MAX_SIGMA)]
Number = Annotated[float, Meta(ge=-1e9, le=1e9)]

_Row = defstruct(
    "_Row",
    [
        ("image", RelativePath),
        ("task", KnownTask),
        ("sigma_y", SigmaY),
        ("method", Annotated[str, one_of(METHODS)]),
        ("sampler", Annotated[str, one_of(SAMPLERS)]),
        ("spacing", Annotated[str, one_of(SPACINGS)]),
        ("nfe", Annotated[int, Meta(ge=1, le=10**9)]),
        ("seed", int),
        ("model_sha256", str),
        ("sample", Annotated[int, Meta(ge=1, le=MAX_SAMPLES)], 1),
        *((knob.label, Number | Label | None, None) for knob in KNOBS.values()),
        *((name, Number | None, None) for name in (*METRICS, *OF_SAMPLES)),
        ("seconds", Annotated[float, Meta(ge=0.0, le=1e9)]),
    ],
    frozen=True,
    kw_only=True,
)
"""What a row must say; those of the columns that name files name none outside of the folder."""

_ROWS_NAME = re.compile(r"rows(\.\d+of\d+)?(\.\d+)?\.jsonl")  # as `rows_file` names them


def row_key(row: Row) -> str:
    """Returns what a row is of: image, task, noise, method with all knobs, sample, seed, model."""
    return json.dumps({name: value for name, value in row.items() if name not in MEASURED}, sort_keys=True)


def unique(rows: Iterable[Row]) -> list[Row]:
    """Returns one row for each key, the first. Raises InputError if another differs in more than its seconds."""
    known: dict[str, Row] = {}
    for row in rows:
        first = known.setdefault(row_key(row), row)
        if {**first, "seconds": None} != {**row, "seconds": None}:
            name = next(name for name in (*first, *row) if name != "seconds" and first.get(name) != row.get(name))
            raise InputError(
                f"two results of {row['image']} ({row['task']}, {row['method']}) differ: {name} is {first.get(name)} "
                f"and {row.get(name)}; evaluate it anew"
            )
    return list(known.values())


def ordered(rows: Iterable[Row], config: Mapping[str, Any]) -> list[Row]:
    """Returns the rows by image, then as the configuration has its problems, then by sample: whoever was done first.

    Raises InputError for a row that the configuration does not ask for.
    """
    numbers = count()
    places = {
        _setting({"task": problem["task"], "sigma_y": problem["sigma_y"], **sampling}): next(numbers)
        for problem in config["problems"]
        for sampling in problem["samplings"]
    }
    about = {name for problem in config["problems"] for sampling in problem["samplings"] for name in sampling}

    def place(row: Row) -> tuple[str, int, int]:
        setting = _setting({name: row[name] for name in ("task", "sigma_y", *about) if name in row})
        if setting not in places:
            raise InputError(
                f"a result of {row['image']} is none that config.json asks for ({setting}); evaluate it anew"
            )
        return row["image"], places[setting], row.get("sample", 1)

    return sorted(rows, key=place)


def _setting(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def read_rows(folder: Path) -> tuple[list[Row], list[str]]:
    """Returns (the rows of all rows*.jsonl of a folder, notes on lines cut short).

    Raises InputError for other damage.
    """
    rows: list[Row] = []
    notes: list[str] = []
    for path in row_files(folder):
        try:
            *lines, rest = read_bytes(path, MAX_LOG).split(b"\n")
        except OSError as exc:
            raise InputError(f"cannot read {path}: {exc.strerror}") from exc
        if rest:
            notes.append(f"{path}: its last line was cut short and is dropped")
        for number, line in enumerate(lines, 1):
            try:
                rows.append(_parsed_row(line))
            except RecordError as exc:
                raise InputError(f"{path} is damaged at line {number} ({exc}); delete that line and try again") from exc
    return rows, notes


def _parsed_row(line: bytes) -> Row:
    """Returns a row as it stands in its file. Raises RecordError for what is none."""
    row = of_today(as_record(parse_json(line), dict[str, str | int | float | bool | None]))
    as_record(row, _Row)
    return row


# --- Their files
def row_files(folder: Path) -> list[Path]:
    """Returns all rows*.jsonl of a folder."""
    return sorted(path for path in folder.glob("rows*.jsonl") if _ROWS_NAME.fullmatch(path.name))


def rows_file(folder: Path, rank: int, shard: tuple[int, int]) -> Path:
    """Returns the file that this process appends to: rows.jsonl for a process alone."""
    part = f".{shard[0]}of{shard[1]}" if shard[1] > 1 else ""
    return inside(folder, f"rows{part}{f'.{rank}' if rank else ''}.jsonl")


class RowLog:
    """A rows file, open for appending; what a killed process left of a line is cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self) -> Iterator[RowLog]:
        """Raises OutputError if it cannot be written, or another process does so."""
        try:
            with suppress(FileNotFoundError):
                check_regular(self.path)
            with self.path.open("a+b") as file:
                if try_lock(file) is False:
                    raise OutputError(
                        f"another dmps eval is writing to {self.path}; let it end, or choose another --out"
                    )
                _cut_torn_line(file)
                self._file = file
                yield self
        except OSError as exc:
            raise OutputError(f"cannot write {self.path}: {exc.strerror or exc}") from exc

    def append(self, rows: Sequence[Row]) -> None:
        """Appends the rows in one write, to the disk."""
        self._file.write(b"".join(json.dumps(row, allow_nan=False).encode("ascii") + b"\n" for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())


def _cut_torn_line(file: BinaryIO) -> None:
    file.seek(0)
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)
