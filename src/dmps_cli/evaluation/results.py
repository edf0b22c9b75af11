"""What an evaluation makes of its rows: a summary; tables, contact sheets, plots and a page in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli import __version__
from dmps_cli.evaluation.configuration import config_hash
from dmps_cli.evaluation.picture_files import mean_file, measurement_file, restored_file, spread_file, truth_file
from dmps_cli.evaluation.rows import Row
from dmps_cli.files.reading import inside
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.metrics.protocol import OF_SAMPLES, Protocol, coverage_notes, measured, size_notes
from dmps_cli.metrics.table import HOTTEST
from dmps_cli.tasks.geometry import shown_size

if TYPE_CHECKING:
    from dmps_cli.listener import Listener
    from dmps_cli.report.run import RunReport
    from dmps_cli.report.sheets import Case, Shot
    from dmps_cli.report.tables import TableRow


GROUP = ("task", "sigma_y", "method", "sampler", "spacing", "nfe")  # and the knobs
HEAT_NOTE = f"black 0 to white {HOTTEST:g} on [-1, 1]"  # of a map of the samples' standard deviation


@dataclass(frozen=True, kw_only=True)
class Results:
    """Rows of an evaluation and where its pictures are. facts: for the JSON; compare: whether beside the paper's."""

    rows: list[Row]
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    folders: Sequence[Path] = ()
    compare: bool = False

    @cached_property
    def protocol(self) -> Protocol:
        """How the numbers came about."""
        return self._protocol(self.config["problems"])

    def _protocol(self, problems: Sequence[Mapping[str, Any]]) -> Protocol:
        """Returns how the numbers of some of the configuration's problems came about."""
        return Protocol(
            metrics=measured(self.config["metrics"], self.rows),
            lpips_net=self.config["lpips_net"],
            sigma_y=tuple(sorted({problem["sigma_y"] for problem in problems})),
            images=tuple(dict.fromkeys(row["image"] for row in self.rows)),
            channels=self.config["channels"],
            prepared=self._prepared(problems),
            samples=self.config["samples"],
        )

    def _prepared(self, problems: Sequence[Mapping[str, Any]]) -> str:
        """Returns what of the pictures was used: what --fit left, and of that what a task can take where it is less."""
        side = self.config["image_size"]
        sizes = {p["task"]: shown_size(p["task"], p["operator"], (side, side)) for p in problems if side is not None}
        less = [f"{name}: {width} x {height}" for name, (height, width) in sizes.items() if min(height, width) < side]
        return str(self.config["prepared"]) + (f" ({', '.join(less)})" if less else "")

    @cached_property
    def _problem_name(self) -> Callable[[TableRow], str]:
        from dmps_cli.report.settings import problem_name

        return problem_name(self.config["problems"])

    @property
    def operators(self) -> dict[str, Any]:
        """Task -> parameters of its operator."""
        return {problem["task"]: problem["operator"] for problem in self.config["problems"]}

    @property
    def notes(self) -> list[str]:
        """What is missing: restorations not done yet, pictures that failed, metrics of those too small."""
        settings = sum(len(problem["samplings"]) for problem in self.config["problems"])
        due = self.config["num_images"] * self.config["samples"] * settings
        failed = sorted({failure["input"] for failure in self.facts.get("failures", ())})
        notes = [f"{len(self.rows)} of {due} restorations are there"] if len(self.rows) < due else []
        notes += [f"not done: {', '.join(failed)} (reasons in results.json)"] if failed else []
        notes += size_notes(self.config["metrics"], self.rows, self.config["lpips_net"])
        return notes + coverage_notes(self.config["samples"])

    @cached_property
    def named(self) -> list[Row]:
        """The rows, with a cap of none said so: an empty cell is what a method does not have."""
        return [row | {"cap": "none"} if row.get("cap", 0) is None else row for row in self.rows]

    @cached_property
    def summary(self) -> list[dict[str, Any]]:
        """Means, standard deviations and intervals by task, noise, method and knobs; the paper's rows if wanted."""
        from dmps_cli.report.paper import beside_paper
        from dmps_cli.report.statistics import summaries
        from dmps_cli.report.tables import column_names

        rows = self.named
        present = column_names(rows)
        knobs = [knob.label for knob in KNOBS.values() if knob.label in present]
        values = (*self.protocol.metrics, *(name for name in OF_SAMPLES if name in present), "seconds")
        ours = [*summaries(rows, (*GROUP, *knobs), values)]
        return beside_paper(ours, self.config["lpips_net"]) if self.compare else ours

    def described(self) -> dict[str, Any]:
        """Returns for the JSON all that the numbers depend on."""
        return {
            "version": __version__,
            "command": "eval",
            **self.facts,
            "model_sha256": self.config["model_sha256"],
            "operators": self.operators,
            "config_sha256": config_hash(self.config),
            "config": self.config,
        }

    @cached_property
    def remarks(self) -> list[str]:
        """The notes, and what the paper lacks or has otherwise."""
        from dmps_cli.report.paper import paper_notes

        about = {"operators": self.operators, "side": self.config["image_size"]}
        return [*self.notes, *paper_notes(self.summary, self.config["lpips_net"], self.config["channels"], **about)]

    def write(self, out: Path | None, listener: Listener) -> None:
        """Writes tables, sheets, plots and the page to the folder, where there is one and something to write."""
        if out is None or not self.rows:
            return
        self.report().write(out, listener)

    def report(self) -> RunReport:
        """Returns what the folder says of them."""
        from dmps_cli.report.run import PAGE_IMAGES, RunReport

        return RunReport(
            title=f"dmps eval: {self.facts.get('dataset')}, prior {self.facts.get('model')}",
            rows=self.named,
            summary=self.summary,
            protocol=self.protocol,
            facts=self.described(),
            configuration=self.config,
            notes=self.remarks,
            cases=self._cases(PAGE_IMAGES),
            of_task=lambda task: self._protocol([p for p in self.config["problems"] if self._problem_name(p) == task]),
        )

    def _cases(self, limit: int) -> list[Case]:
        """Returns the pictures of the first images of every task, as far as they are in the folders."""
        from dmps_cli.report.settings import method_name
        from dmps_cli.report.sheets import Case

        method = method_name(self.named)
        names = [*dict.fromkeys(row["image"] for row in self.rows)][:limit]
        found: dict[tuple[str, str], Case] = {}
        for stored, row in zip(self.rows, self.named, strict=True):
            if row["image"] not in names or row.get("sample", 1) != 1:
                continue
            key = (self._problem_name(row), row["image"])
            if key not in found:
                truth, measurement = self._shot(truth_file(row)), self._shot(measurement_file(row))
                found[key] = Case(task=key[0], image=row["image"], truth=truth, measurement=measurement, restored={})
            shots = {method(row): self._shot(restored_file(stored), row)}
            if "sample" in row:
                shots[f"{method(row)}, mean"] = self._shot(mean_file(stored), {"psnr": row.get("psnr_of_mean")})
                shots[f"{method(row)}, std"] = self._shot(spread_file(stored), note=HEAT_NOTE)
            there = {name: shot for name, shot in shots.items() if shot}
            found[key] = replace(found[key], restored={**found[key].restored, **there})
        return [case for case in found.values() if case.truth or case.restored]

    def _shot(self, name: Path, row: TableRow | None = None, note: str = "") -> Shot | None:
        """Returns the picture of that name, in the first of the folders that has it."""
        from dmps_cli.report.sheets import Shot

        paths = (inside(folder, name) for folder in self.folders)
        return next((Shot(picture=path, row=row or {}, note=note) for path in paths if path.is_file()), None)
