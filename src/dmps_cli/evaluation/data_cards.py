"""The table of named data sets, `datasets.toml`, and over it one of the user's."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import asdict

from dmps_cli.errors import InputError
from dmps_cli.files.atomic import short_key
from dmps_cli.files.cache import cache_dir
from dmps_cli.files.reading import read_bytes
from dmps_cli.files.records import RecordError, as_record, expanded, form, parse_toml

_BUILTIN = Path(str(files("dmps_cli"))) / "datasets.toml"
RowNumber = Annotated[int, Meta(ge=0, le=10**12)]
Text = Annotated[str, form("a text that is not empty", r"\s*[^\s\0][^\0]*")]


class DataTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a table of datasets.toml says: which rows of which data set on the Hub, and on what terms.

    column: of the pictures; rows: (first, last) of the split; files: a pattern of the shards' names, where they do
    not follow from the split; where: column -> the value that a row must have; source: an address to read about it.
    """

    about: Text
    repo: Annotated[str, form("owner/name", r"[\w.-]+(/[\w.-]+)?")]
    split: Text
    column: Text = "image"
    rows: tuple[RowNumber, RowNumber] | None = None
    revision: Annotated[str, form("a branch, a tag or a commit", r"[\w./-]{1,255}")] = "main"
    files: Text | None = None
    where: dict[str, str | int] = {}
    licence: Text = "not stated"
    source: Text | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for rows that are none."""
        if self.rows is not None and self.rows[0] > self.rows[1]:
            raise ValueError(f"rows is {list(self.rows)}; expected the first and the last")


class DataCard(DataTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set: its table and its name."""

    name: Annotated[str, form("letters, digits, dots, _ and -, and not 'samples'", r"(?!samples\Z)\w[\w.-]{0,99}")]

    @property
    def location(self) -> Path:
        """Its folder in the cache: another for other pictures under the same name."""
        pictures = (self.repo, self.revision, self.split, self.column, self.files, sorted(self.where.items()))
        return cache_dir() / "datasets" / f"{self.name}-{short_key(pictures)}"


def data_cards() -> dict[str, DataCard]:
    """Returns every data set by name: those that dmps knows, and over them those of the file that DMPS_DATASETS names.

    Those whose table is wrong are left out (`data_card`). Raises InputError for a file that cannot be read.
    """
    return {name: row for name, row in _rows().items() if isinstance(row, DataCard)}


def data_card(name: str) -> DataCard | None:
    """Returns the data set of that name, if there is one. Raises InputError, saying what is wrong with its table."""
    row = _rows().get(name)
    if isinstance(row, InputError):
        raise row
    return row


def _rows() -> dict[str, DataCard | InputError]:
    named = os.environ.get("DMPS_DATASETS")
    return _read(_BUILTIN) | (_read(expanded(named)) if named else {})


def _read(path: Path) -> dict[str, DataCard | InputError]:
    try:
        tables = parse_toml(read_bytes(path))
    except OSError as exc:
        raise InputError(f"cannot read the data sets of {path}: {exc.strerror}") from exc
    except RecordError as exc:
        raise InputError(f"cannot read the data sets of {path}: {exc}") from exc
    return {name: _card(name, table, f"{path}, [{name}]") for name, table in tables.items()}


def _card(name: str, table: object, where: str) -> DataCard | InputError:
    """Returns the card of a table, or what is wrong with it."""
    try:
        return as_record({**asdict(as_record(table, DataTable)), "name": name}, DataCard)
    except RecordError as exc:
        return InputError(f"{where}: {exc}")
