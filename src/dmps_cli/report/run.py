"""The report of a run: tables, plots, contact sheets and a page, as the files of one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmps_cli.files.atomic import atomic_write
from dmps_cli.files.reading import inside
from dmps_cli.listener import Listener
from dmps_cli.metrics.protocol import Protocol
from dmps_cli.report.drawing import missing, svg
from dmps_cli.report.page import Section, html_page
from dmps_cli.report.plots import Chart, charts
from dmps_cli.report.settings import compact, file_stem, setting_notes
from dmps_cli.report.sheets import Case, task_sheet
from dmps_cli.report.tables import TableRow
from dmps_cli.report.writers import PAGE, table_files

SHEET_IMAGES, PAGE_IMAGES = 8, 24
"""So many images, the first by name, are on a task's contact sheet and on the page."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run has to tell.

    summary: of the rows. facts: for the JSON; configuration: for the page. cases: pictures of the first PAGE_IMAGES
    images. of_task: name of a case's task -> how its numbers came about, where that is not all of the protocol.
    """

    title: str
    rows: Sequence[TableRow]
    summary: Sequence[TableRow]
    protocol: Protocol
    facts: Mapping[str, Any]
    configuration: Mapping[str, Any]
    notes: Sequence[str] = ()
    cases: Sequence[Case] = ()
    of_task: Callable[[str], Protocol] | None = None

    def write(self, out: Path, listener: Listener) -> None:
        """Writes all of it into a folder, over what is there; said. Raises OutputError."""
        for path, data in self.files():
            atomic_write(inside(out, path), data, overwrite=True)
        listener.note(f"wrote tables and {out / PAGE}")
        if sentence := missing():
            listener.note(sentence)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yields (path relative to the folder, content), the tables first."""
        tables = table_files(self.rows, self.summary, self.protocol, self.facts, notes=self.notes)
        for name, text in tables.items():
            yield name, text.encode(errors="backslashreplace")
        plots = charts(self.summary, [name for name in ("psnr", "lpips") if name in self.protocol.metrics])
        for stem, chart in () if missing() else plots.items():
            yield f"plots/{stem}.svg", svg(chart).encode()
        yield from self._sheets()
        yield PAGE, self._page([*plots.values()]).encode(errors="replace")

    def _sheets(self) -> Iterator[tuple[str, bytes]]:
        from dmps_cli.files.images import png_bytes

        for task in dict.fromkeys(case.task for case in self.cases):
            here = [case for case in self.cases if case.task == task][:SHEET_IMAGES]
            left = len(self.protocol.images) - len(here)
            protocol = self.of_task(task) if self.of_task else self.protocol
            footnote = protocol.line() + (f"; {left} more images are not shown" if left > 0 else "")
            yield f"sheets/{file_stem(task)}.png", png_bytes(task_sheet(here, footnote=footnote))

    def _page(self, plots: Sequence[Chart]) -> str:
        narrow = compact(self.summary)
        tasks = dict.fromkeys(str(row["task"]) for row in self.summary)
        total = len(self.protocol.images)
        notes = [self.protocol.line(), *self.notes, *setting_notes(self.summary)]
        if self.cases and total > PAGE_IMAGES:
            notes.append(f"pictures of the first {PAGE_IMAGES} of {total} images")
        return html_page(
            self.title,
            [Section(title=task, rows=[row for row in narrow if row["task"] == task]) for task in tasks],
            notes=notes,
            cases=self.cases,
            charts=plots,
            facts=self.configuration,
        )
