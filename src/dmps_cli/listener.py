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
        """Something worth knowing."""
        ...

    def error(self, text: str) -> None:
        """Something that could not be done, while the rest goes on."""
        ...

    def progress(
        self, total: int, unit: str = "steps"
    ) -> AbstractContextManager[tuple[Advance, Callable[[str], None]]]:
        """For the time of a count: (advance by one, say what is in hand)."""
        ...

    def gauge(self, total: float) -> AbstractContextManager[Callable[[float, str], None]]:
        """For the time of a measure: what is told (how far of the total, what is to be read beside it)."""
        ...

    def transfer(self, name: str) -> AbstractContextManager[Told]:
        """For the time of a download: what is told the bytes."""
        ...


class Silent:
    """A listener that hears nothing."""

    def note(self, text: str) -> None:
        """Nothing is said."""

    def error(self, text: str) -> None:
        """Nothing is said."""

    @contextmanager
    def progress(self, total: int, unit: str = "steps") -> Iterator[tuple[Advance, Callable[[str], None]]]:
        """Nothing is shown."""
        yield (lambda: None), (lambda text: None)

    @contextmanager
    def gauge(self, total: float) -> Iterator[Callable[[float, str], None]]:
        """Nothing is shown."""
        yield lambda done, text: None

    @contextmanager
    def transfer(self, name: str) -> Iterator[Told]:
        """Nothing is shown."""
        yield lambda done, total: None


SILENT = Silent()


def note_missing(listener: Listener, reasons: Mapping[str, str]) -> None:
    """Says which metrics have no column, and why."""
    for metric, reason in reasons.items():
        listener.note(f"{metric} is left out: {reason}")
