"""Who is told what happens: work speaks to a Listener, whether a terminal, a notebook or nobody hears it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[], None]
Told = Callable[[int, int | None], None]
"""(bytes done, bytes in all or None)."""


class Listener(Protocol):
    """What work says while it goes on; results are what it returns."""

    def note(self, text: str) -> None:
        """Says something worth knowing."""
        ...

    def error(self, text: str) -> None:
        """Says what could not be done, while the rest goes on."""
        ...

    def progress(
        self, total: int, unit: str = "steps", *, pictures: int = 0
    ) -> AbstractContextManager[tuple[Advance, Callable[[str], None]]]:
        """Shows a count while it is open: (advance by one, say what is in hand). pictures: that the total is of."""
        ...

    def gauge(self, total: float) -> AbstractContextManager[Callable[[float, str], None]]:
        """Shows a measure while it is open; it is told (how far of the total, what is to be read beside it)."""
        ...

    def transfer(self, name: str) -> AbstractContextManager[Told]:
        """Shows a download while it is open; it is told the bytes."""
        ...


class Silent:
    """A listener that hears nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def error(self, text: str) -> None:
        """Says nothing."""

    @contextmanager
    def progress(
        self, total: int, unit: str = "steps", *, pictures: int = 0
    ) -> Iterator[tuple[Advance, Callable[[str], None]]]:
        """Shows nothing."""
        yield (lambda: None), (lambda text: None)

    @contextmanager
    def gauge(self, total: float) -> Iterator[Callable[[float, str], None]]:
        """Shows nothing."""
        yield lambda done, text: None

    @contextmanager
    def transfer(self, name: str) -> Iterator[Told]:
        """Shows nothing."""
        yield lambda done, total: None


SILENT = Silent()


def note_missing(listener: Listener, reasons: Mapping[str, str]) -> None:
    """Says which metrics have no column, and why."""
    for metric, reason in reasons.items():
        listener.note(f"{metric} is left out: {reason}")
