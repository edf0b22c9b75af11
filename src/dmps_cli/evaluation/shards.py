"""The shards of a named data set: which parquet files of the Hub hold its rows, in their order."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from dmps_cli.errors import InputError
from dmps_cli.evaluation.data_cards import DataCard
from dmps_cli.files.downloads.fetch import fetch
from dmps_cli.files.downloads.sources import HubListing
from dmps_cli.files.formats import JSON
from dmps_cli.files.reading import read_bytes
from dmps_cli.files.records import RecordError, Sha256, as_record, form, is_relative, parse_json
from dmps_cli.listener import SILENT, Listener

MAX_LISTING = 2**26  # bytes


@dataclass(frozen=True, kw_only=True)
class Link:
    """How the Hub is asked, and whom to tell."""

    offline: bool = False
    listener: Listener = SILENT


class _Lfs(Struct, frozen=True, kw_only=True):
    """What the Hub says of a large file."""

    sha256: Sha256 | None = None


class Shard(Struct, frozen=True, kw_only=True, rename={"file": "rfilename"}):
    """A file of the data set, as the Hub lists it."""

    file: str
    size: Annotated[int, Meta(ge=0)] | None = None
    lfs: _Lfs | None = None

    @property
    def name(self) -> str:
        """Without its folders."""
        return Path(self.file).name

    @property
    def sha256(self) -> str | None:
        """Of what it holds, where the Hub says so."""
        return None if self.lfs is None else self.lfs.sha256


class _Listing(Struct, frozen=True, kw_only=True):
    """A data set at a commit."""

    sha: Annotated[str, form("a commit", r"[\w.-]{1,255}")]
    siblings: list[Shard]


def shards(card: DataCard, link: Link) -> tuple[str, list[Shard]]:
    """Returns (the commit, the shards in the order of their rows).

    The listing is kept: a branch that moves on does not move the rows.
    """
    source = HubListing(repo=card.repo, revision=card.revision)
    path = fetch(
        [source],
        card.location / "hub.json",
        form=JSON,
        command=_command(card),
        advice=advice(card),
        offline=link.offline,
        listener=link.listener,
        label=card.name,
    ).path
    try:
        listing = as_record(parse_json(read_bytes(path, MAX_LISTING)), _Listing)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    except RecordError as exc:
        raise InputError(f"{path} is no listing of the Hub; delete it and run again ({exc})") from exc
    return listing.sha, _of_split(card, listing.siblings)


def _of_split(card: DataCard, listed: Sequence[Shard]) -> list[Shard]:
    """Returns those of the split: SPLIT-00000-of-00015*.parquet, SPLIT.parquet, SPLIT/*.parquet; or as `files` says."""
    split = re.escape(card.split)
    usual = re.compile(rf"(.*/)?({split}(-\d+-of-\d+[^/]*)?\.parquet|{split}/[^/]+\.parquet)")
    tables = [each for each in listed if each.file.endswith(".parquet") and is_relative(each.file)]
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


def _command(card: DataCard) -> str:
    return f"dmps eval --dataset {card.name}"


def advice(card: DataCard) -> str:
    """Returns what to do where there is no network."""
    return (
        f"run `{_command(card)}` with the same --limit where there is network and copy the folder {card.location}, or "
        "name a folder of pictures of your own with --dataset"
    )
