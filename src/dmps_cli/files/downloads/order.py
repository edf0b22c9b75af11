"""What to get, how long to wait for it, whom to tell."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dmps_cli.files.formats import Format
from dmps_cli.files.network import UNREACHABLE
from dmps_cli.listener import SILENT, Told

Note = Callable[[str], object]
"""Told what is worth knowing, in a sentence."""

_FEW = 2**20


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a download waits: seconds, but for `tries` (in a row without getting on) and `floor` (bytes a second).

    Slower than `floor` over `window` counts as stalled; `read` bounds the wait for any next byte. The wait between
    two tries doubles from `first_wait`; a server that asks for more than `longest_wait` is given up. `connect` bounds
    the wait for a connection; if there has been none for `unreachable`, there is no network.
    """

    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 300.0
    read: float = 30.0
    connect: float = 5.0
    unreachable: float = UNREACHABLE
    window: float = 60.0
    floor: float = 1024.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(kw_only=True)
class Contact:
    """Whether any host has answered yet, and since when (seconds) that is hoped for."""

    is_made: bool = False
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to get, and whom to tell. size: in bytes; form: what its first bytes must be."""

    target: Path
    size: int | None = None
    sha256: str | None = None
    form: Format | None = None
    note: Note = SILENT.note
    told: Told = lambda done, total: None
    patience: Patience = field(default_factory=Patience)
    contact: Contact = field(default_factory=Contact)

    @property
    def most(self) -> float:
        """The bytes after which no more are taken; a few too many are counted to the end, and said."""
        if self.size is not None:
            return self.size + _FEW
        return self.form.most if self.form else math.inf

    @property
    def hope(self) -> float:
        """The seconds in which a first connection may still come about; no end of them once there has been one."""
        if self.contact.is_made:
            return math.inf
        return self.contact.since + self.patience.unreachable - time.monotonic()
