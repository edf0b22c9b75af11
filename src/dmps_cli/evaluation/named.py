"""How rows of a named data set become picture files in the cache.

A data set lies on the Hub as parquet files, its shards, in which a picture is a file's bytes. Of a shard its footer is
read, and the row groups that hold a row that is wanted; the wanted rows are then written as they are, each once, under
their row's number. What a later run needs is read from those files, without shard or network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from dmps_cli.errors import InputError
from dmps_cli.evaluation.data_cards import DataCard
from dmps_cli.evaluation.parquet import Index, cells, index, num_bytes, opened
from dmps_cli.evaluation.shards import Link, Shard, shards
from dmps_cli.files.atomic import atomic_write, remove_left_overs_below
from dmps_cli.files.cache import locked


def row_pictures(
    card: DataCard, link: Link, names: Sequence[str] | None = None, limit: int | None = None
) -> dict[str, Path]:
    """Returns name -> file of the pictures of a data set, in the order of the rows; names are row numbers, 00012.png.

    names: those wanted; limit: the first so many rows; of the shards only what holds them is read. Raises
    InputError for what is no picture or not in the data set, WeightsError for what cannot be downloaded, OutputError.
    """
    wanted = None if names is None else {_wanted_row(card, name) for name in names}
    ends = [*([card.rows[1]] if card.rows else []), *([max(wanted)] if wanted else [])]
    found: dict[int, Path] = {}
    start = 0
    commit, listed = shards(card, link)
    for shard in listed:
        if start > min(ends, default=start) or (limit is not None and len(found) >= limit):
            break
        rows = index(card, shard, commit, link)
        chosen = _chosen(card, rows, start, wanted)[: None if limit is None else limit - len(found)]
        found |= _files(card, shard, commit, start, chosen, link)
        start += rows.rows
    if not found and wanted is None:
        raise InputError(
            f"the data set {card.name} has none of the rows that its table asks for; it has {start} in all"
        )
    return {found[row].name: found[row] for row in sorted(found)}


def row_origin(card: DataCard) -> dict[str, str]:
    """Returns repo, commit, split, column of a data set whose pictures are in the cache.

    What `row_pictures` has read.
    """
    commit, _ = shards(card, Link(offline=True))
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


def _chosen(card: DataCard, found: Index, start: int, wanted: Collection[int] | None) -> list[int]:
    """Returns the rows of a shard that are meant; start: of its first."""
    first, last = card.rows or (0, start + found.rows)
    rows = range(start, start + found.rows) if found.kept is None else [start + row for row in found.kept]
    return [row for row in rows if first <= row <= last and (wanted is None or row in wanted)]


def _files(card: DataCard, shard: Shard, commit: str, start: int, rows: Sequence[int], link: Link) -> dict[int, Path]:
    """Returns the files of these rows of a shard, which are written where they are not there yet."""
    folder = card.location / "pictures"
    there = _written(folder)
    if any(row not in there for row in rows):
        with locked(folder, link.listener.note):
            there = _written(folder)  # by another process, meanwhile
            remove_left_overs_below(folder)
            if missing := [row for row in rows if row not in there]:
                _write(card, shard, commit, start, missing, link)
        there = _written(folder)
    return {row: there[row] for row in rows}


def _write(card: DataCard, shard: Shard, commit: str, start: int, rows: Sequence[int], link: Link) -> None:
    """Writes the pictures of rows as they are in the shard, byte for byte; start: the shard's first row."""
    wanted = {row - start for row in rows}
    with opened(card, shard, commit, link) as file, link.listener.transfer(card.name) as told:
        size = f" ({num_bytes(card, file, wanted) / 1e6:.1f} MB)"
        link.listener.note(f"{card.name}: {len(rows)} pictures of {card.repo}/{shard.file}{size}; {card.licence}")
        for row, cell in cells(card, file, shard, wanted, told):
            content = cell.get("bytes") if isinstance(cell, dict) else cell
            suffix = _suffix(content) if isinstance(content, bytes) else None
            if content is None or suffix is None:
                raise InputError(f"row {start + row} of the data set {card.name} is no picture in '{card.column}'")
            atomic_write(card.location / "pictures" / f"{start + row:05d}{suffix}", content, overwrite=True)


def _written(folder: Path) -> dict[int, Path]:
    """Returns row -> its picture, of those that are there; each is whole, or is not there."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names alone
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise InputError(f"cannot read {folder}: {exc.strerror}") from exc
    return {row: folder / name for name in names if (row := _row_of(name)) is not None}


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
