"""Checkpoints and data sets from the network into the cache: whole, checked, and once.

Whichever source it is, the bytes come the same way, through httpx2, which huggingface_hub brings: into a temporary file
beside the target that a later run goes on with. That is why the Hub's files are not left to `hf_hub_download`: since
huggingface_hub 1.18 it begins again after every interruption, and it compares no hash (docs/architecture.md). What lies
in the Hub's own cache is used from there.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dmps_cli.errors import InputError, OutputError, WeightsError
from dmps_cli.files.atomic import remove_left_overs, sha256_file
from dmps_cli.files.cache import check_room, locked, unwritable
from dmps_cli.files.downloads.expected import check_due, check_form, is_due
from dmps_cli.files.downloads.order import Contact, Order, Patience
from dmps_cli.files.downloads.part import Part, remove_parts
from dmps_cli.files.downloads.sources import Hub, Source
from dmps_cli.files.downloads.transfer import whole
from dmps_cli.files.formats import Format
from dmps_cli.files.hashes import check_digest, check_size, note_of, read_note, stat_of, write_note
from dmps_cli.listener import SILENT, Listener

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file at hand. source: where it came from, empty if nobody knows; downloaded: in this call."""

    path: Path
    sha256: str
    source: str
    downloaded: bool


def fetch(
    sources: Sequence[Source],
    target: Path,
    *,
    command: str,
    size: int | None = None,
    sha256: str | None = None,
    offline: bool = False,
    use_hub_cache: bool = True,
    listener: Listener = SILENT,
    label: str = "",
    patience: Patience | None = None,
    advice: str = "",
    form: Format | None = None,
) -> Fetched:
    """Returns the file `target`, or its like in the Hub's cache; if need be downloads it, from the first good source.

    size: in bytes; sha256: hexadecimal, or None: what the Hub publishes, or what was first downloaded, is compared
    with; form: what its first bytes must be. command: what downloads this file, for the message of a machine without
    network; advice: what to do instead, where the file is none that a user could put there. HF_HUB_OFFLINE=1 is
    `offline`. use_hub_cache: whether a file in the Hub's cache will do. Of several processes one downloads, the others
    wait; a file that is there needs no write.

    Raises WeightsError if no source works, or if the file there is another than expected (it is left alone);
    OutputError if the cache cannot be written or the disk is full; InputError if the file there cannot be read.
    """
    order = _order(target, size=size, sha256=sha256, listener=listener, patience=patience, form=form)
    if found := _at_hand(order, sources if use_hub_cache else ()):
        return found
    copy = f"run `{command}` on a machine with network and copy the file to that path"
    check_online(target, advice or copy, offline=offline)
    with locked(target, listener.note):
        remove_left_overs([note_of(target)])
        if found := _at_hand(order, ()):  # another process was faster
            return found
        with listener.transfer(label or target.name) as told:
            instead = advice or f"or put the file at {target} yourself"
            return _from_any(replace(order, told=told, contact=Contact()), sources, instead)


def at_hand(
    sources: Sequence[Source], target: Path, *, size: int | None, sha256: str | None, listener: Listener
) -> Fetched | None:
    """Returns the file `target`, or its like in the Hub's cache, checked; None if neither is there.

    Raises WeightsError if the file is another than expected, InputError if it cannot be read.
    """
    return _at_hand(_order(target, size=size, sha256=sha256, listener=listener), sources)


def _order(
    target: Path,
    *,
    size: int | None,
    sha256: str | None,
    listener: Listener,
    patience: Patience | None = None,
    form: Format | None = None,
) -> Order:
    return Order(
        target=target,
        size=size,
        sha256=sha256.lower() if sha256 else None,
        told=lambda done, total: None,
        note=listener.note,
        patience=patience or Patience(),
        form=form,
        contact=Contact(),
    )


def check_online(target: Path, instead: str, *, offline: bool) -> None:
    """Raises WeightsError if a download is forbidden, by the option or HF_HUB_OFFLINE. instead: what can be done."""
    if offline or is_offline():
        why = "offline was asked for" if offline else "HF_HUB_OFFLINE is set"
        raise WeightsError(f"{target} is not there and {why}; {instead}")


def is_offline() -> bool:
    """Returns whether HF_HUB_OFFLINE forbids downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def in_hub_cache(source: Source) -> Path | None:
    """Returns the file in the Hub's cache, unread; None if it is not there."""
    if not isinstance(source, Hub):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, revision=source.revision, repo_type=source.kind)
    return Path(found) if isinstance(found, str) else None


# What is there already
def _at_hand(order: Order, sources: Sequence[Source]) -> Fetched | None:
    """Returns the file in our cache or in the Hub's, checked, without network."""
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


# Downloading
def _from_any(order: Order, sources: Sequence[Source], instead: str) -> Fetched:
    """Downloads from the first source that works. instead: what a user can do if none does. Raises WeightsError."""
    reasons = []
    for source in sources:
        try:
            return _from_source(order, source)
        except WeightsError as exc:
            reasons.append(f"{source}: {exc}")
            if source is not sources[-1]:
                order.note(f"{source}: {exc}; trying {sources[len(reasons)]}")
    reason = "; ".join(reasons) or "no source is known"
    raise WeightsError(f"cannot download {order.target.name}: {reason}; {instead}")


def _from_source(order: Order, source: Source) -> Fetched:
    """Downloads, checks, and gives the file its name. Raises WeightsError if the source does not have it."""
    part = Part.of(order.target, source)
    if order.size is not None:
        check_room(order.target, order.size - part.state()[0])
    resumed = part.state()[0] > 0
    answer = whole(order, source, part)
    if resumed and not is_due(order, answer, sha256_file(part.path)):
        order.note(f"{source}: what an earlier run had begun does not fit; downloading from the start")
        part.drop()
        answer = whole(order, source, part)
    check_form(order, part)
    digest = sha256_file(part.path)
    try:
        check_due(order, answer, digest)
    except WeightsError:
        part.drop()
        raise
    return _published(order, source, part, digest)


def _published(order: Order, source: Source, part: Part, digest: str) -> Fetched:
    """Records the hash, gives the file its name, and clears what other sources had begun.

    In this order: whoever sees the file sees its record. A name changes neither size nor time.
    """
    write_note(note_of(order.target), digest, str(source), stat_of(part.path))
    try:
        part.path.replace(order.target)
    except OSError as exc:
        raise unwritable(order.target.parent, exc) from exc
    remove_parts(order.target)
    return Fetched(path=order.target, sha256=digest, source=str(source), downloaded=True)
