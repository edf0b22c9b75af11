"""What a person sees: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dmps_cli import processes
from dmps_cli.cli.streams import is_terminal, print_result, wrapped
from dmps_cli.errors import OutputError
from dmps_cli.listener import Advance, Told
from dmps_cli.text import has_line_break, in_one_line, visible, visible_bytes

if TYPE_CHECKING:
    from dmps_cli.report.tables import TableRow


def _say(text: str) -> None:
    """Writes a line on stderr, if it can be said; whatever a name or a server put into it, it is one line."""
    if sys.stderr is not None:
        with suppress(OSError):
            shown = (visible_bytes if sys.stderr.isatty() else visible)(text)
            print(wrapped(shown, sys.stderr), file=sys.stderr, flush=True)


def _shown(text: str) -> str:
    """Returns a line for stdout.

    On a terminal nothing in it is obeyed, elsewhere only its line breaks are written out.
    """
    return visible_bytes(text) if is_terminal(sys.stdout) else in_one_line(text)


@dataclass(frozen=True, kw_only=True)
class Console:
    """quiet drops notes and progress, never results or errors; as_json leaves stdout to one object."""

    quiet: bool = False
    as_json: bool = False

    def note(self, text: str, *more: str) -> None:
        """Says something worth knowing; more: lines that belong under it."""
        if not self.quiet and not processes.rank():
            for line in (f"dmps: {text}", *more):
                _say(line)

    def error(self, text: str) -> None:
        """Says what could not be done; another rank than the first says which it is."""
        _say(f"dmps: {f'rank {processes.rank()}: ' if processes.rank() else ''}error: {text}")

    def result(self, text: str) -> None:
        """Prints a line of the result, at once, so that a pipe can go on with it."""
        if not self.as_json:
            print_result(lambda stream: wrapped(_shown(text), stream))

    def path(self, path: Path) -> None:
        """Prints a path as a line of the result: into a pipe as it is. Raises OutputError as `check_path`."""
        self.check_path(path)
        if not self.as_json:
            print_result(lambda stream: _shown(str(path)))

    def check_path(self, path: Path) -> None:
        """Raises OutputError if the path cannot be a line of the result, for it has a line break."""
        if has_line_break(str(path)) and not self.as_json and not is_terminal(sys.stdout):
            raise OutputError(f"{path}: the results are one path a line, and this one has a line break; take --json")

    def rendered(self, render: Callable[[TextIO], str]) -> None:
        """Prints lines of the result as `render` lays them out for stdout, with nothing that should not be obeyed."""
        if not self.as_json:
            print_result(render)

    def table(self, rows: Sequence[TableRow]) -> None:
        """Prints rows as a table."""
        from dmps_cli.cli.tables import fitted_table

        self.rendered(lambda stream: fitted_table(rows, stream))

    def markdown(self, text: str) -> None:
        """Prints a page of Markdown: laid out on a terminal, as it is elsewhere."""
        from dmps_cli.cli.tables import markdown_text

        self.rendered(lambda stream: f"\n{markdown_text(text, stream)}")

    def object(self, content: Mapping[str, Any]) -> None:
        """Prints the result as one JSON object, with --json."""
        from dmps_cli.report.tables import json_text

        if self.as_json:
            print_result(lambda stream: json_text(content))

    def transfer(self, name: str) -> AbstractContextManager[Told]:
        """Shows a bar of bytes on stderr, only on a terminal, from the first byte on; it is told (done, in all)."""
        if not self.shows_bars:
            return nullcontext(lambda done, total: None)
        from dmps_cli.cli import bars

        return bars.transfer(name)

    def gauge(self, total: float) -> AbstractContextManager[Callable[[float, str], None]]:
        """Shows a bar on stderr, only on a terminal; it is told (how far of the total, what to read beside it)."""
        if not self.shows_bars:
            return nullcontext(lambda done, text: None)
        from dmps_cli.cli import bars

        return bars.gauge(total)

    def progress(
        self, total: int, unit: str = "steps", *, pictures: int = 0
    ) -> AbstractContextManager[tuple[Advance, Callable[[str], None]]]:
        """Shows a bar on stderr, only on a terminal; yields (advance by one, say what is in hand).

        pictures: how many the total is of; of several, those in an hour are shown.
        """
        if not self.shows_bars:
            return nullcontext(((lambda: None), (lambda text: None)))
        from dmps_cli.cli import bars

        return bars.progress(total, unit, pictures)

    @property
    def shows_bars(self) -> bool:
        """Whether somebody watches."""
        return not self.quiet and is_terminal(sys.stderr) and not processes.rank()
