"""What a process of an evaluation does: its share of the pictures, rows, pictures, tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli import processes
from dmps_cli.errors import UsageError
from dmps_cli.evaluation.folder import FolderOptions, check_folder, open_run
from dmps_cli.evaluation.merging import copy_pictures, read_failures, read_runs
from dmps_cli.evaluation.picture_files import mean_file, measurement_file, restored_file, spread_file, truth_file
from dmps_cli.evaluation.pictures import Framing, share
from dmps_cli.evaluation.results import Results
from dmps_cli.evaluation.rows import Row, RowLog, ordered, read_rows, row_key, rows_file, unique
from dmps_cli.files.atomic import atomic_write
from dmps_cli.files.reading import inside
from dmps_cli.jobs.batch import Batch, failure_list
from dmps_cli.listener import Listener
from dmps_cli.report.paper import PAPER

if TYPE_CHECKING:
    import torch

    from dmps_cli.evaluation.outcomes import Outcome, Plan, Problem
    from dmps_cli.metrics.scorer import Scorer
    from dmps_cli.weights.loading import LoadedPrior


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process of an evaluation. part: (I, N) of --shard; show: what the first process does with the results."""

    pictures: Mapping[str, Path]
    part: tuple[int, int]
    fit: Framing
    plan: Plan
    prior: LoadedPrior
    scorer: Scorer
    device: torch.device
    target: FolderOptions
    config: dict[str, Any]
    facts: Mapping[str, Any]
    compare: bool
    batch: Batch
    show: Callable[[Results], None]

    def run(self) -> list[str]:
        """Does our share of what is not done yet; then the first of the processes reports on all.

        Returns the pictures that failed, in the first of the processes.
        """
        known = self._known()
        work = self._work({row_key(row) for row in known})
        fresh: list[Row] = []
        interrupted: list[KeyboardInterrupt] = []
        try:
            self._restore(work, fresh)
        except KeyboardInterrupt as exc:  # what is done is worth its table
            if processes.world_size() > 1:  # the others are leaving too
                raise
            interrupted.append(exc)
        rows = unique([*known, *processes.gather_rows(fresh)])
        if self.target.out is not None:  # after gather_rows, which waits for all
            rows = unique([*rows, *read_rows(self.target.out)[0]])
        failures = processes.gather_rows([(name, str(error)) for name, error in self.batch.failures])
        failed = {"failures": [{"input": name, "error": error} for name, error in failures]}
        if not processes.rank() and (rows or not interrupted):
            out = self.target.out
            results = Results(
                rows=ordered(rows, self.config),
                config=self.config,
                facts={**self.facts, **failed},
                folders=[] if out is None else [out],
                compare=self.compare,
            )
            results.write(out, self.batch.listener)
            self.show(results)
        if interrupted:
            raise interrupted[0]
        processes.barrier()  # or torchrun would end the first while it writes
        if failures and not processes.rank():
            names = [*dict.fromkeys(name for name, _ in failures)]
            self.batch.listener.error(failure_list(names, len(share(self.pictures, *self.part))))
            return names
        return []

    def _known(self) -> list[Row]:
        """Returns the rows of earlier starts; every process knows the same ones before any writes."""
        if self.target.out is None:
            return []
        if not processes.rank():
            anew = self.target.overwrite and not processes.restarts()
            merged = f"dmps eval --merge {self.target.out} --compare {PAPER}"
            advice = f"; {merged} adds the paper's rows to what is there" if self.compare else ""
            open_run(self.target.out, self.config, self.facts, overwrite=anew, advice=advice)
        processes.barrier()
        rows, notes = read_rows(self.target.out)
        processes.barrier()
        for note in notes:
            self.batch.listener.note(note)
        return unique(rows)

    def _work(self, done: set[str]) -> dict[str, list[Problem]]:
        """Returns what is left for this process.

        Of the pictures of our shard that are not done, every world_size-th.
        """
        left = {name: self.plan.remaining(name, done) for name in share(self.pictures, *self.part)}
        mine = [name for name, problems in left.items() if problems][processes.rank() :: processes.world_size()]
        total = self.plan.num_samples * sum(len(p.samplings) for problems in left.values() for p in problems)
        there = f", {len(done)} are there" if done else ""
        self.batch.listener.note(f"{total} restoration{'s' * (total != 1)} to come{there}")
        return {name: left[name] for name in mine}

    def _restore(self, work: Mapping[str, Sequence[Problem]], rows: list[Row]) -> None:
        """Does the work and adds its rows, each on the disk first."""
        from dmps_cli.evaluation.outcomes import outcomes
        from dmps_cli.files.images import load_up_to

        channels, listener, out = self.prior.prior.channels, self.batch.listener, self.target.out
        num_steps = self.plan.num_samples * sum(
            s.nfe for problems in work.values() for p in problems for s in p.samplings
        )
        place = {name: k + 1 for k, name in enumerate(work)}
        log = None if out is None else RowLog(rows_file(out, processes.rank(), self.part))
        if log is not None and not work:
            return
        with log.opened() if log else nullcontext(), listener.progress(num_steps) as (advance, say):
            for outcome in outcomes(
                self.pictures,
                work,
                self.plan,
                self.prior.prior,
                self.scorer,
                self.device,
                lambda path: self.fit.apply(load_up_to(path, channels).pixels[None]),
                self.batch.fail,
                advance,
            ):
                if log is not None:
                    self._write(outcome)
                    log.append(outcome.rows)
                if not rows:
                    self._estimate(outcome.rows, num_steps)
                rows += outcome.rows
                row = outcome.rows[0]
                say(f"{row['image']} {row['task']} (image {place[row['image']]} of {len(work)})")

    def _estimate(self, rows: list[Row], num_steps: int) -> None:
        """Says how long the rest will take if every network evaluation takes as long as those of the first rows."""
        rest = num_steps - sum(row["nfe"] for row in rows)
        seconds = rest * rows[0]["seconds"] / rows[0]["nfe"]
        if rest:
            self.batch.listener.note(f"about {_duration(seconds)} to go, by the first restoration")

    def _write(self, outcome: Outcome) -> None:
        """Writes the pictures, before the row that says that they are there."""
        from dmps_cli.evaluation.outcomes import heat_map
        from dmps_cli.files.images import encode

        if self.target.no_images or self.target.out is None:
            return
        first = outcome.rows[0]
        pictures = {truth_file(first): outcome.truth, measurement_file(first): outcome.measurement}
        pictures |= {restored_file(row): x for row, x in zip(outcome.rows, outcome.restored, strict=True)}
        if len(outcome.rows) > 1:
            pictures[mean_file(first)] = outcome.restored.mean(0)
            pictures[spread_file(first)] = heat_map(outcome.restored)
        for name, x in pictures.items():
            path = inside(self.target.out, name)
            atomic_write(path, encode(x, path), overwrite=True)


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def merge_folders(folders: Sequence[Path], target: FolderOptions, listener: Listener, *, compare: bool) -> Results:
    """Returns the results of folders of one configuration as one; --out: makes a folder of all, pictures too."""
    if not folders:
        raise UsageError("--merge joins folders; name them: dmps eval --merge runs/*")
    if target.overwrite and target.out is not None and target.out.resolve() in [path.resolve() for path in folders]:
        raise UsageError(f"--overwrite would empty {target.out}, which is to be merged; choose another --out")
    content, rows, notes = read_runs(folders)
    config = content.config
    failures, more = read_failures(folders)
    for note in (*notes, *more):
        listener.note(note)
    if target.out is not None:
        check_folder(target.out, overwrite=target.overwrite)
        open_run(target.out, config, content.facts, overwrite=target.overwrite)
        known, _ = read_rows(target.out)
        rows = ordered(unique([*known, *rows]), config)
        there = {row_key(row) for row in known}
        with RowLog(rows_file(target.out, 0, (1, 1))).opened() as log:
            log.append([row for row in rows if row_key(row) not in there])
        if not target.no_images:
            copy_pictures(folders, rows, target.out)
    facts = {**content.facts, "merged": [str(path) for path in folders], "failures": failures}
    places = folders if target.out is None else [target.out, *folders]
    results = Results(rows=rows, config=config, facts=facts, folders=places, compare=compare)
    results.write(target.out, listener)
    return results
