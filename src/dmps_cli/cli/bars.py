"""Bars on stderr, for a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from dmps_cli.listener import Advance
from dmps_cli.text import visible_bytes


def _bar(*columns: ProgressColumn) -> Progress:
    """Returns a bar that goes when it is done. What is printed on stdout meanwhile stays out of a pipe or a file."""
    on_one_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=on_one_terminal)


@contextmanager
def transfer(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Shows a bar of bytes from the first one on; it is told (done, in all)."""
    text = TextColumn(visible_bytes(name), markup=False)
    with _bar(text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        handle = bar.add_task(name, total=None, visible=False)
        yield lambda done, total: bar.update(handle, completed=done, total=total, visible=True)


@contextmanager
def gauge(total: float) -> Iterator[Callable[[float, str], None]]:
    """Shows how far of a total; it is told (how far, what to read beside it)."""
    with _bar(BarColumn(20), TextColumn("{task.description}", markup=False)) as bar:
        handle = bar.add_task("", total=total)
        yield lambda done, text: bar.update(handle, completed=done, description=visible_bytes(text))


class PicturesColumn(ProgressColumn):
    """Pictures in an hour, of a count that has as many steps for each."""

    def __init__(self, steps_each: float) -> None:
        super().__init__()
        self.steps_each = steps_each

    def render(self, task: Task) -> Text:
        """Returns the text; nothing while the speed is unknown."""
        speed = task.finished_speed or task.speed
        return Text(f"{3600 * speed / self.steps_each:,.0f} pictures/h" if speed else "")


@contextmanager
def progress(total: int, unit: str, pictures: int = 0) -> Iterator[tuple[Advance, Callable[[str], None]]]:
    """Shows a count of a total; yields (advance by one, say what is in hand). pictures: as `Console.progress`."""
    text = TextColumn("{task.description}", markup=False)
    rate = [PicturesColumn(total / pictures)] if pictures > 1 else []
    with _bar(text, BarColumn(20), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn(), *rate) as bar:
        handle = bar.add_task("", total=total)
        yield (lambda: bar.advance(handle)), (lambda text: bar.update(handle, description=visible_bytes(text)))
