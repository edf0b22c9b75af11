"""The report of one call of `dmps restore`: its results beside what they were made of, and beside the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import OutputError, UsageError
from dmps_cli.files.atomic import check_writable
from dmps_cli.jobs.batch import Batch
from dmps_cli.jobs.request import Job
from dmps_cli.metrics.protocol import Protocol, size_notes
from dmps_cli.metrics.table import METRICS
from dmps_cli.report.writers import REPORTS, TABLES
from dmps_cli.tasks.table import task

if TYPE_CHECKING:
    from torch import Tensor

    from dmps_cli.jobs.measured import Measured
    from dmps_cli.jobs.restore import Restored, Scores
    from dmps_cli.listener import Listener
    from dmps_cli.report.run import RunReport
    from dmps_cli.report.sheets import Case, Shot

GROUP = ("task", "method", "sampler", "spacing", "nfe")  # and the knobs; an estimated sigma_y is each picture's own


@dataclass(kw_only=True)
class Restorations:
    """What a call restored so far, for its report. out: the folder; batch: says how its inputs are named."""

    out: Path
    batch: Batch
    rows: list[dict[str, Any]] = field(default_factory=list)
    cases: dict[Path, Case] = field(default_factory=dict)

    def check(self, jobs: Iterable[Job], *, overwrite: bool) -> None:
        """Raises OutputError where the report could not be written, UsageError where a result has one of its names."""
        check_writable(self.out)
        files = [self.out / name for name in (*TABLES, *REPORTS)]
        taken = {file.absolute() for job in jobs for path in job.targets.values() for file in _files(path)}
        for file in files:
            if file.absolute() in taken:
                raise UsageError(f"{file} would be a result's file and the report's; choose another --report")
            if file.exists() and not overwrite:
                raise OutputError(f"{file} exists; --overwrite replaces it, or choose another --report")

    def add(self, restored: Restored) -> None:
        """Takes note of a result that is written, and of the first pictures."""
        from dmps_cli.report.run import PAGE_IMAGES
        from dmps_cli.report.sheets import Shot

        of, job = restored.of, restored.of.job
        row = self._row(restored)
        self.rows.append(row)
        if job.path not in self.cases and len(self.cases) < PAGE_IMAGES:
            self.cases[job.path] = _case(of, row["image"])
        if case := self.cases.get(job.path):
            label = " ".join([row["method"], *([str(row["sample"])] if "sample" in row else [])])
            shot = Shot(picture=restored.path, row=row)
            self.cases[job.path] = replace(case, restored={**case.restored, label: shot})

    def _row(self, restored: Restored) -> dict[str, Any]:
        """Returns the row of a result: what it is of, how it was made, how near the truth it is."""
        job, facts = restored.of.job, restored.facts
        numbers = {name: facts[name] for name in METRICS if name in facts}
        sample = {"sample": restored.sample + 1} if len(job.targets) > 1 else {}
        return {
            "image": (self.batch.places.get(job.path, Path()) / job.path.name).as_posix(),
            "task": job.plan.task,
            **job.sampling.as_dict(),
            "sigma_y": facts["sigma_y"],
            "seed": facts["seed"],
            "model_sha256": facts["model_sha256"],
            **sample,
            **numbers,
            "seconds": facts["seconds"],
        }

    def report(self, scores: Scores | None, facts: Mapping[str, Any]) -> RunReport:
        """Returns what is to be written. scores: where there were references."""
        from dmps_cli.report.run import RunReport
        from dmps_cli.report.settings import setting_names
        from dmps_cli.report.statistics import summaries

        names = scores.scorer.names if scores else ()
        protocol = Protocol(
            metrics=tuple(name for name in names if any(name in row for row in self.rows)),
            lpips_net=scores.scorer.lpips_net if scores else "",
            sigma_y=tuple(sorted({row["sigma_y"] for row in self.rows})),
            images=tuple(dict.fromkeys(row["image"] for row in self.rows)),
            channels=scores.channels if scores else 3,
            samples=max((row.get("sample", 1) for row in self.rows), default=1),
        )
        knobs = [name for name in setting_names(self.rows) if name not in GROUP]
        configuration = {name: facts[name] for name in sorted(facts) if name != "command"}
        return RunReport(
            title=f"dmps restore, prior {facts.get('model')}",
            rows=self.rows,
            summary=summaries(self.rows, (*GROUP, *knobs), (*protocol.metrics, "seconds")),
            protocol=protocol,
            facts={**facts, **self.batch.described()},
            configuration=configuration,
            notes=self._notes(names, protocol),
            cases=[*self.cases.values()],
        )

    def _notes(self, names: Sequence[str], protocol: Protocol) -> list[str]:
        """Returns what is missing."""
        failed = [*dict.fromkeys(name for name, _ in self.batch.failures)]
        notes = [f"not done: {', '.join(failed)} (reasons in results.json)"] if failed else []
        return notes + (size_notes(names, self.rows, protocol.lpips_net) if names else [])

    def write(self, scores: Scores | None, facts: Mapping[str, Any], listener: Listener) -> None:
        """Writes the report, if there is anything to tell. Raises OutputError."""
        if self.rows:
            self.report(scores, facts).write(self.out, listener)


def _files(target: Path) -> tuple[Path, Path]:
    return target, target.with_suffix(".json")


def _case(of: Measured, image: str) -> Case:
    """Returns the pictures that a result is beside: the truth, and the measurement where it is a picture."""
    from dmps_cli.report.sheets import Case

    shown = None if task(of.job.plan.task).is_own else _shot(of.op.to_image(of.y)[0])
    truth = None if of.truth is None else _shot(of.truth[0])
    return Case(task=of.job.plan.task, image=image, truth=truth, measurement=shown, restored={})


def _shot(x: Tensor) -> Shot:
    """Returns a picture (C, H, W) on [-1, 1] as a sheet has it: no larger than a cell."""
    import numpy as np
    from PIL import Image

    from dmps_cli.files.images import to_uint8
    from dmps_cli.report.sheets import MAX_CELL, Shot

    picture = Image.fromarray(np.broadcast_to(to_uint8(x), (*x.shape[1:], 3)).copy())
    if max(picture.size) > MAX_CELL:
        picture.thumbnail((MAX_CELL, MAX_CELL), Image.Resampling.LANCZOS)
    return Shot(picture=picture)
