"""Rows of a parquet file, on the Hub or on this machine, of which no more is read than they need."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict

from dmps_cli.errors import InputError, WeightsError
from dmps_cli.evaluation.data_cards import DataCard, RowNumber
from dmps_cli.evaluation.shards import MAX_LISTING, Link, Shard, advice
from dmps_cli.files.atomic import atomic_write
from dmps_cli.files.downloads.addresses import hub_endpoint
from dmps_cli.files.downloads.answers import explained
from dmps_cli.files.downloads.fetch import check_online
from dmps_cli.files.downloads.here import at_hand
from dmps_cli.files.downloads.order import Order, Patience
from dmps_cli.files.downloads.sources import HubData
from dmps_cli.files.network import is_silent
from dmps_cli.files.reading import open_regular, read_bytes
from dmps_cli.files.records import RecordError, as_record, parse_json
from dmps_cli.listener import Told

if TYPE_CHECKING:
    from huggingface_hub import HfFileSystem

_BATCH = 64  # rows in memory at a time


class Index(Struct, frozen=True, kw_only=True):
    """What is to be remembered of a shard: how many rows it has, and which of them `where` keeps (None: all)."""

    rows: RowNumber
    kept: list[RowNumber] | None


def index(card: DataCard, shard: Shard, commit: str, link: Link) -> Index:
    """Reads the shard's footer, and the columns of `where`, once; noted, so that they need not be read again."""
    path = card.location / f"{shard.file}.rows.json"
    try:
        return as_record(parse_json(read_bytes(path, MAX_LISTING)), Index)
    except (OSError, RecordError):  # not there yet, or no longer readable
        pass
    with opened(card, shard, commit, link) as file:
        found = Index(rows=file.metadata.num_rows, kept=_kept(card, file, shard) if card.where else None)
    atomic_write(path, json.dumps(asdict(found)).encode(), overwrite=True)
    return found


def _kept(card: DataCard, file: Any, shard: Shard) -> list[int]:
    """Returns the rows of a shard that have what `where` asks for, from 0."""
    for column in card.where:
        _check_column(card, file, column, shard)
    found: list[int] = []
    for group in _groups(file):
        if _may_hold(group.facts, card.where):
            rows = file.read_row_group(group.number, columns=list(card.where)).to_pylist()
            found += [group.first + k for k, row in enumerate(rows) if row == dict(card.where)]
    return found


def _may_hold(facts: Any, where: Mapping[str, Any]) -> bool:
    """Returns whether the least and largest values that the footer tells of a row group allow for those asked for."""
    for column in map(facts.column, range(facts.num_columns)):
        value, told = where.get(column.path_in_schema), column.statistics
        if value is None or told is None or not told.has_min_max or not isinstance(told.min, type(value)):
            continue
        if not told.min <= value <= told.max:
            return False
    return True


def cells(card: DataCard, file: Any, shard: Shard, rows: Collection[int], told: Told) -> Iterator[tuple[int, Any]]:
    """Yields (row, cell) of the column of pictures for the rows wanted, from 0; told: of the bytes read."""
    _check_column(card, file, card.column, shard)
    groups = [group for group in _groups(file) if group.holds(rows)]
    total, done = num_bytes(card, file, rows), 0
    for group in groups:
        at = group.first
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group.number], columns=[card.column]):
            values = batch.column(0)
            yield from ((at + k, values[k].as_py()) for k in range(len(values)) if at + k in rows)
            at += len(values)
        done += group.num_bytes(card.column)
        told(done, total)


def num_bytes(card: DataCard, file: Any, rows: Collection[int]) -> int:
    """Returns how many bytes must be read for the pictures of these rows."""
    return sum(group.num_bytes(card.column) for group in _groups(file) if group.holds(rows))


@dataclass(frozen=True, kw_only=True)
class _Group:
    """A row group: its number, its first row, what the footer says of it."""

    number: int
    first: int
    facts: Any

    def holds(self, rows: Collection[int]) -> bool:
        """Returns whether it has one of the rows."""
        return any(self.first <= row < self.first + self.facts.num_rows for row in rows)

    def num_bytes(self, column: str) -> int:
        """Returns how many bytes a column of it has in the file."""
        chunks = map(self.facts.column, range(self.facts.num_columns))
        return sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)


def _groups(file: Any) -> Iterator[_Group]:
    first = 0
    for number in range(file.num_row_groups):
        group = _Group(number=number, first=first, facts=file.metadata.row_group(number))
        yield group
        first += group.facts.num_rows


def _check_column(card: DataCard, file: Any, column: str, shard: Shard) -> None:
    names = file.schema_arrow.names
    if column not in names:
        raise InputError(
            f"the data set {card.name} has no column '{column}' in {shard.name}; it has {', '.join(names)}; correct "
            "its table (docs/datasets.md)"
        )


# Where it lies
@contextmanager
def opened(card: DataCard, shard: Shard, commit: str, link: Link) -> Iterator[Any]:
    """Yields a ParquetFile, of this machine where the shard lies there, else of the Hub.

    Raises InputError for what cannot be read, on opening or later, and without pyarrow; WeightsError for what cannot be
    downloaded.
    """
    pyarrow = _pyarrow(card.name)
    source = HubData(repo=card.repo, file=shard.file, revision=commit)
    target = card.location / shard.file
    here = at_hand(Order(target=target, size=shard.size, sha256=shard.sha256, note=link.listener.note), [source])
    try:
        with contextlib.ExitStack() as stack:
            if here is not None:
                content: Any = stack.enter_context(open_regular(here.path))
            else:
                check_online(target, advice(card), offline=link.offline)
                content = stack.enter_context(_on_the_hub(source, shard, advice(card)))
            yield stack.enter_context(pyarrow.parquet.ParquetFile(content, page_checksum_verification=True))
    except (OSError, pyarrow.ArrowException) as exc:
        reason = str(exc).strip().partition("\n")[0].rstrip(".")
        where = f"{here.path}: {reason}; delete it to download it again" if here else f"{source}: {reason}"
        raise InputError(f"cannot read the parquet file {where}") from exc


def _pyarrow(name: str) -> Any:
    """Returns the package. Raises InputError without it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise InputError(f"the data set {name} needs pyarrow to read parquet files: pip install pyarrow") from exc
    return pyarrow


@contextmanager
def _on_the_hub(source: HubData, shard: Shard, instead: str) -> Iterator[IO[bytes]]:
    """Yields the file, of which each read is a request for these bytes alone. Raises WeightsError, also on a read."""
    import httpx2
    from huggingface_hub import HfFileSystem
    from huggingface_hub.errors import HfHubHTTPError

    endpoint, wait = hub_endpoint(), Patience().connect
    try:
        if is_silent(endpoint, wait):
            raise WeightsError(f"cannot read {source}: no connection within {wait:g} s; {instead}")
        hub = HfFileSystem(endpoint=endpoint, skip_instance_cache=True)
        path = f"datasets/{source.repo}@{source.revision}/{source.file}"
        with _answering(source):
            _check_listed(hub, path, source, shard)
            file = hub.open(path, "rb", cache_type="none")
        with file:
            yield file
    except (HfHubHTTPError, FileNotFoundError) as exc:  # the second also for what the Hub refuses to show, its cause
        refusal = exc if isinstance(exc, HfHubHTTPError) else exc.__cause__
        why = "the Hub does not have it"
        if isinstance(refusal, HfHubHTTPError):
            why = f"HTTP {refusal.response.status_code}{explained(refusal.response, source)}"
        raise WeightsError(f"cannot read {source}: {why}") from exc
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as exc:
        raise WeightsError(f"cannot read {source}: {str(exc) or type(exc).__name__}; {instead}") from exc


@contextmanager
def _answering(source: HubData) -> Iterator[None]:
    """Turns whatever the library makes of a listing that is none into a WeightsError; errors of HTTP pass."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise WeightsError(f"cannot read {source}: the Hub's listing is damaged ({type(exc).__name__})") from exc


def _check_listed(hub: HfFileSystem, path: str, source: HubData, shard: Shard) -> None:
    """Raises WeightsError if the file is another than the one that was listed, by its size or its sha256."""
    found = hub.info(path)
    if shard.size not in (None, found["size"]):
        raise WeightsError(f"{source}: the file has {found['size']} bytes there, {shard.size} are due by the listing")
    sha256 = getattr(found.get("lfs"), "sha256", None)
    if shard.sha256 is not None and sha256 not in (None, shard.sha256):
        raise WeightsError(f"{source}: its sha256 is {sha256} there, {shard.sha256} is due by the listing")
