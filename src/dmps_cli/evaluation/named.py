"""The table of named data sets, `datasets.toml`, and how rows of one become picture files in the cache.

A data set lies on the Hub as parquet files, its shards, in which a picture is a file's bytes. A shard is downloaded
whole, in the order of the rows, and only if a row of it is wanted or may be; the wanted rows are then written as they
are, each once, under their row's number. What a later run needs is read from those files, without shard or network.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import asdict

from dmps_cli.errors import InputError
from dmps_cli.files.atomic import atomic_write, remove_left_overs_below, short_key
from dmps_cli.files.cache import cache_dir, locked
from dmps_cli.files.downloads.fetch import fetch, is_offline
from dmps_cli.files.downloads.sources import HubData, HubListing
from dmps_cli.files.formats import JSON, PARQUET
from dmps_cli.files.reading import open_regular, read_bytes
from dmps_cli.files.records import RecordError, Sha256, as_record, expanded, form, is_relative, parse_json, parse_toml
from dmps_cli.listener import SILENT, Listener

_BUILTIN = Path(str(files("dmps_cli"))) / "datasets.toml"
MAX_LISTING = 2**26  # bytes
_BATCH = 64  # rows in memory at a time
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


@dataclass(frozen=True, kw_only=True)
class Link:
    """How the Hub is asked, and whom to tell."""

    offline: bool = False
    listener: Listener = SILENT


# The table
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


# Its pictures
def row_pictures(
    card: DataCard, link: Link, names: Sequence[str] | None = None, limit: int | None = None
) -> dict[str, Path]:
    """Returns name -> file of the pictures of a data set, in the order of the rows; names are row numbers, 00012.png.

    names: those wanted; limit: the first so many rows; only the shards that hold them are downloaded. Raises
    InputError for what is no picture or not in the data set, WeightsError for what cannot be downloaded, OutputError.
    """
    wanted = None if names is None else {_wanted_row(card, name) for name in names}
    ends = [*([card.rows[1]] if card.rows else []), *([max(wanted)] if wanted else [])]
    found: dict[int, Path] = {}
    start = 0
    commit, shards = _shards(card, link)
    for shard in shards:
        if start > min(ends, default=start) or (limit is not None and len(found) >= limit):
            break
        index = _index(card, shard, commit, link)
        chosen = _chosen(card, index, start, wanted)[: None if limit is None else limit - len(found)]
        found |= _files(card, shard, commit, start, chosen, link)
        start += index.rows
    if not found and wanted is None:
        raise InputError(
            f"the data set {card.name} has none of the rows that its table asks for; it has {start} in all"
        )
    return {found[row].name: found[row] for row in sorted(found)}


def row_origin(card: DataCard) -> dict[str, str]:
    """Returns repo, commit, split, column of a data set whose pictures are in the cache.

    What `row_pictures` has read.
    """
    commit, _ = _shards(card, Link(offline=True))
    return {"repo": card.repo, "commit": commit, "split": card.split, "column": card.column}


def _wanted_row(card: DataCard, name: str) -> int:
    """Returns the row that a name means. Raises InputError, before a download, for one that cannot be there."""
    row = _row_of(name)
    first, last = card.rows or (0, row or 0)
    if row is None or not first <= row <= last:
        raise InputError(f"'{name}' is no picture of {card.name}; they are named by their rows, {first:05d}.png")
    return row


def _row_of(name: str) -> int | None:
    match = _PICTURE.fullmatch(name)
    return int(match[1]) if match else None


_PICTURE = re.compile(r"(\d{5,12})\.(png|jpg|webp|gif|bmp|tif)")


def _chosen(card: DataCard, index: _Index, start: int, wanted: Collection[int] | None) -> list[int]:
    """Returns the rows of a shard that are meant; start: of its first."""
    first, last = card.rows or (0, start + index.rows)
    rows = range(start, start + index.rows) if index.kept is None else [start + row for row in index.kept]
    return [row for row in rows if first <= row <= last and (wanted is None or row in wanted)]


def _files(card: DataCard, shard: _Shard, commit: str, start: int, rows: Sequence[int], link: Link) -> dict[int, Path]:
    """Returns the files of these rows of a shard, which are written where they are not there yet."""
    folder = card.location / "pictures"
    there = _written(folder)
    if any(row not in there for row in rows):
        parquet = _fetched(card, shard, commit, link)
        with locked(folder, link.listener.note):
            there = _written(folder)  # by another process, meanwhile
            remove_left_overs_below(folder)
            _write(card, parquet, start, [row for row in rows if row not in there], folder)
        there = _written(folder)
    return {row: there[row] for row in rows}


def _written(folder: Path) -> dict[int, Path]:
    """Returns row -> its picture, of those that are there; each is whole, or is not there."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names alone
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise InputError(f"cannot read {folder}: {exc.strerror}") from exc
    return {row: folder / name for name in names if (row := _row_of(name)) is not None}


# Its shards
class _Lfs(Struct, frozen=True, kw_only=True):
    """What the Hub says of a large file."""

    sha256: Sha256 | None = None


class _Shard(Struct, frozen=True, kw_only=True, rename={"file": "rfilename"}):
    """A file of the data set, as the Hub lists it."""

    file: str
    size: Annotated[int, Meta(ge=0)] | None = None
    lfs: _Lfs | None = None

    @property
    def sha256(self) -> str | None:
        """Of what it holds, where the Hub says so."""
        return None if self.lfs is None else self.lfs.sha256


class _Listing(Struct, frozen=True, kw_only=True):
    """A data set at a commit."""

    sha: Annotated[str, form("a commit", r"[\w.-]{1,255}")]
    siblings: list[_Shard]


def _shards(card: DataCard, link: Link) -> tuple[str, list[_Shard]]:
    """Returns (the commit, the shards in the order of their rows).

    The listing is kept: a branch that moves on does not move the rows.
    """
    source = HubListing(repo=card.repo, revision=card.revision)
    path = fetch([source], card.location / "hub.json", form=JSON, **_how(card, link)).path
    try:
        listing = as_record(parse_json(read_bytes(path, MAX_LISTING)), _Listing)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    except RecordError as exc:
        raise InputError(f"{path} is no listing of the Hub; delete it and run again ({exc})") from exc
    return listing.sha, _of_split(card, listing.siblings)


def _of_split(card: DataCard, shards: Sequence[_Shard]) -> list[_Shard]:
    """Returns those of the split: SPLIT-00000-of-00015*.parquet, SPLIT.parquet, SPLIT/*.parquet; or as `files` says."""
    split = re.escape(card.split)
    usual = re.compile(rf"(.*/)?({split}(-\d+-of-\d+[^/]*)?\.parquet|{split}/[^/]+\.parquet)")
    tables = [each for each in shards if each.file.endswith(".parquet") and is_relative(each.file)]
    found = sorted(
        (
            each
            for each in tables
            if (fnmatch.fnmatchcase(each.file, card.files) if card.files else usual.fullmatch(each.file))
        ),
        key=lambda each: each.file,
    )
    where = f"the data set {card.name}, {card.repo} at {card.revision},"
    if not found:
        has = ", ".join(each.file for each in tables[:3]) + (", ..." if len(tables) > 3 else "")
        raise InputError(f"{where} has no shards of the split '{card.split}'; its parquet files: {has or 'none'}")
    if len({Path(each.file).parent for each in found}) > 1:
        raise InputError(f"{where} has several kinds of '{card.split}'; say with the key `files` which are meant")
    numbers = [match for each in found if (match := re.search(r"-(\d+)-of-(\d+)", each.file))]
    if numbers and [int(n[1]) for n in numbers] != [*range(int(numbers[0][2]))] and not card.files:
        raise InputError(f"{where} lists {len(found)} of {int(numbers[0][2])} shards of '{card.split}'")
    return found


def _how(card: DataCard, link: Link) -> dict[str, Any]:
    """Returns what `fetch` is told."""
    command = f"dmps eval --dataset {card.name}"
    advice = (
        f"run `{command}` with the same --limit where there is network and copy the folder {card.location}, or name a "
        "folder of pictures of your own with --dataset"
    )
    return {
        "command": command,
        "advice": advice,
        "offline": link.offline,
        "listener": link.listener,
        "label": card.name,
    }


def _fetched(card: DataCard, shard: _Shard, commit: str, link: Link) -> Path:
    """Returns the shard on the disk, downloaded if need be. Raises InputError without pyarrow, before the download."""
    _pyarrow(card.name)
    target = card.location / shard.file
    if not (target.exists() or link.offline or is_offline()):
        size = "" if shard.size is None else f" ({shard.size / 1e6:.0f} MB)"
        link.listener.note(f"{card.name}: {card.repo}/{shard.file}{size}; {card.licence}")
    source = HubData(repo=card.repo, file=shard.file, revision=commit)
    return fetch([source], target, size=shard.size, sha256=shard.sha256, form=PARQUET, **_how(card, link)).path


class _Index(Struct, frozen=True, kw_only=True):
    """What is to be remembered of a shard: how many rows it has, and which of them `where` keeps (None: all)."""

    rows: RowNumber
    kept: list[RowNumber] | None


def _index(card: DataCard, shard: _Shard, commit: str, link: Link) -> _Index:
    """Reads the shard's footer, once; kept beside it, so that the shard may be deleted."""
    path = card.location / f"{shard.file}.rows.json"
    try:
        return as_record(parse_json(read_bytes(path, MAX_LISTING)), _Index)
    except (OSError, RecordError):  # not there yet, or no longer readable
        pass
    parquet = _fetched(card, shard, commit, link)
    with _opened(card, parquet) as file:
        index = _Index(rows=file.metadata.num_rows, kept=_kept(card, file, parquet) if card.where else None)
    atomic_write(path, json.dumps(asdict(index)).encode(), overwrite=True)
    return index


# Parquet
def _pyarrow(name: str) -> Any:
    """Returns the package. Raises InputError without it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise InputError(f"the data set {name} needs pyarrow to read parquet files: pip install pyarrow") from exc
    return pyarrow


@contextmanager
def _opened(card: DataCard, path: Path) -> Iterator[Any]:
    """Yields a ParquetFile. Raises InputError for what cannot be read, on opening or later."""
    pyarrow = _pyarrow(card.name)
    try:
        with open_regular(path) as source, pyarrow.parquet.ParquetFile(source) as file:
            yield file
    except (OSError, pyarrow.ArrowException) as exc:
        reason = str(exc).strip().partition("\n")[0].rstrip(".")
        raise InputError(f"cannot read the parquet file {path}: {reason}; delete it to download it again") from exc


def _check_column(card: DataCard, file: Any, column: str, path: Path) -> None:
    names = file.schema_arrow.names
    if column not in names:
        raise InputError(
            f"the data set {card.name} has no column '{column}' in {path.name}; it has {', '.join(names)}; correct its "
            "table (docs/datasets.md)"
        )


def _kept(card: DataCard, file: Any, path: Path) -> list[int]:
    """Returns the rows of a shard that have what `where` asks for, from 0."""
    for column in card.where:
        _check_column(card, file, column, path)
    rows = file.read(columns=list(card.where)).to_pylist()
    return [k for k, row in enumerate(rows) if row == dict(card.where)]


def _write(card: DataCard, parquet: Path, start: int, rows: Sequence[int], folder: Path) -> None:
    """Writes the pictures of rows as they are in the shard, byte for byte; start: the shard's first row."""
    with _opened(card, parquet) as file:
        _check_column(card, file, card.column, parquet)
        for row, cell in _cells(file, card.column, {row - start for row in rows}):
            content = cell.get("bytes") if isinstance(cell, dict) else cell
            suffix = _suffix(content) if isinstance(content, bytes) else None
            if content is None or suffix is None:
                raise InputError(f"row {start + row} of the data set {card.name} is no picture in '{card.column}'")
            atomic_write(folder / f"{start + row:05d}{suffix}", content, overwrite=True)


def _cells(file: Any, column: str, rows: Collection[int]) -> Iterator[tuple[int, Any]]:
    """Yields (row, cell) of the rows wanted; of the others no more than a batch is in memory."""
    at = 0
    for group in range(file.num_row_groups):
        num_rows = file.metadata.row_group(group).num_rows
        if not any(row in rows for row in range(at, at + num_rows)):
            at += num_rows
            continue
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group], columns=[column]):
            values = batch.column(0)
            yield from ((at + k, values[k].as_py()) for k in range(len(values)) if at + k in rows)
            at += len(values)


def _suffix(content: bytes) -> str | None:
    """Returns the suffix of a picture's file, by its first bytes; None for what is no picture."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), None)


_MAGIC = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
}
