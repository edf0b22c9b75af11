"""Checkpoints and data sets from the network into the cache: whole, checked, and once.

Whichever source it is, the bytes come the same way, through httpx2, which huggingface_hub brings: into a temporary file
beside the target that a later run goes on with. That is why the Hub's files are not left to `hf_hub_download`: since
huggingface_hub 1.18 it begins again after every interruption, and it compares no hash (docs/architecture.md). What lies
in the Hub's own cache is used from there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dmps_cli.errors import WeightsError
from dmps_cli.files.atomic import remove_left_overs, sha256_file
from dmps_cli.files.cache import check_room, locked, unwritable
from dmps_cli.files.downloads.expected import check_due, check_form, is_due
from dmps_cli.files.downloads.here import Fetched, at_hand
from dmps_cli.files.downloads.order import Contact, Order, Patience
from dmps_cli.files.downloads.part import Part, remove_parts
from dmps_cli.files.downloads.sources import Source
from dmps_cli.files.downloads.transfer import whole
from dmps_cli.files.formats import Format
from dmps_cli.files.hashes import note_of, stat_of, write_note
from dmps_cli.listener import SILENT, Listener


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
    order = Order(
        target=target,
        size=size,
        sha256=sha256.lower() if sha256 else None,
        form=form,
        note=listener.note,
        patience=patience or Patience(),
    )
    if found := at_hand(order, sources if use_hub_cache else ()):
        return found
    copy = f"run `{command}` on a machine with network and copy the file to that path"
    check_online(target, advice or copy, offline=offline)
    with locked(target, listener.note):
        remove_left_overs([note_of(target)])
        if found := at_hand(order, ()):  # another process was faster
            return found
        with listener.transfer(label or target.name) as told:
            instead = advice or f"or put the file at {target} yourself"
            return _from_any(replace(order, told=told, contact=Contact()), sources, instead)


def check_online(target: Path, instead: str, *, offline: bool) -> None:
    """Raises WeightsError if a download is forbidden, by the option or HF_HUB_OFFLINE. instead: what can be done."""
    if offline or is_offline():
        why = "offline was asked for" if offline else "HF_HUB_OFFLINE is set"
        raise WeightsError(f"{target} is not there and {why}; {instead}")


def is_offline() -> bool:
    """Returns whether HF_HUB_OFFLINE forbids downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


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
