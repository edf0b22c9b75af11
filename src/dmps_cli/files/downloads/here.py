"""What is here already: in our cache, or in that of the Hub's library."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmps_cli.errors import InputError, OutputError, WeightsError
from dmps_cli.files.atomic import sha256_file
from dmps_cli.files.downloads.order import Order
from dmps_cli.files.downloads.sources import Hub, Source
from dmps_cli.files.hashes import check_digest, check_size, note_of, read_note, stat_of, write_note

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file at hand. source: where it came from, empty if nobody knows; downloaded: in this call."""

    path: Path
    sha256: str
    source: str
    downloaded: bool


def at_hand(order: Order, sources: Sequence[Source]) -> Fetched | None:
    """Returns the file in our cache or in the Hub's, checked, without network; None if it is in neither.

    Raises WeightsError if the file of our cache is another than expected, InputError if it cannot be read.
    """
    try:
        present = order.target.exists()
    except OSError as exc:
        raise InputError(f"cannot read {order.target}: {exc.strerror}") from exc
    if present:
        return _checked_target(order)
    return next(filter(None, (_in_hub_cache(order, source) for source in sources if isinstance(source, Hub))), None)


def _checked_target(order: Order) -> Fetched:
    """Reads the file through only if it is not the one, by size and time, whose hash was recorded."""
    target, stat, record = order.target, stat_of(order.target), read_note(note_of(order.target))
    check_size(target, stat.st_size, order.size)
    is_known = record is not None and record.is_of(stat)
    digest = record.sha256 if record and is_known else sha256_file(target)
    check_digest(target, digest, order.sha256)
    source = record.source if record and record.sha256 == digest else ""
    if not is_known:
        with contextlib.suppress(OutputError):  # a cache that cannot be written is as good to read
            write_note(note_of(target), digest, source, stat)
    return Fetched(path=target, sha256=digest, source=source, downloaded=False)


def _in_hub_cache(order: Order, source: Hub) -> Fetched | None:
    """Returns a file that any tool left in the Hub's cache; there a large one is a link to one named by its sha256."""
    path = in_hub_cache(source)
    if path is None:
        return None
    record = read_note(note_of(order.target))
    published = path.readlink().name if path.is_symlink() else ""  # one step: a blob may be a link to a shared store
    published = published if _SHA256.fullmatch(published) else ""
    due = order.sha256 or (record.sha256 if record else None) or published or None
    try:
        check_size(path, stat_of(path).st_size, order.size)
        digest = sha256_file(path)
        check_digest(path, digest, due)
    except (InputError, WeightsError) as exc:
        order.note(f"the Hub's cache is passed over: {exc}")
        return None
    return Fetched(path=path, sha256=digest, source=str(source), downloaded=False)


def in_hub_cache(source: Source) -> Path | None:
    """Returns the file in the Hub's cache, unread; None if it is not there."""
    if not isinstance(source, Hub):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, revision=source.revision, repo_type=source.kind)
    return Path(found) if isinstance(found, str) else None
