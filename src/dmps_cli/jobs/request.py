"""What is asked of the inputs of a restoration, and the jobs that it makes of them: nothing is computed yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dmps_cli.errors import UsageError
from dmps_cli.files.atomic import sha256_file
from dmps_cli.files.reading import MAX_PICTURE
from dmps_cli.jobs.batch import Batch, OutputOptions, plan_outputs
from dmps_cli.jobs.measured import Job, find_reference, plan_input, references, sample_names, unfinished
from dmps_cli.jobs.plan import GivenSigma
from dmps_cli.listener import Listener
from dmps_cli.methods.options import HasSampler, SamplingOptions
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import task as checked_task

MAX_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of every input alike; what it leaves open, the input's sidecar and the task say.

    own: the prior or its card, for the noise levels where none are named. samples: of the posterior, per input.
    """

    own: HasSampler
    task: str | None = None
    operator: OperatorOptions = field(default_factory=OperatorOptions)
    noise: GivenSigma = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    samples: int = 1
    reference: Path | None = None
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        """Raises UsageError for what can be refused before any input is looked at."""
        if self.task is not None:
            checked_task(self.task)
        self.sampling.resolve(self.own, self.task)
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise UsageError(f"--samples is {self.samples}; it must be from 1 to {MAX_SAMPLES}")

    def jobs(
        self, batch: Batch, paths: Sequence[Path], check: Callable[[Path], object] = lambda path: None
    ) -> list[Job]:
        """Returns a job for each input of which something is to be drawn; what cannot be one is the batch's failure.

        check: raises what is wrong with an output's name. Raises UsageError, InputError for what is all inputs' alike.
        """
        kept = [*references(self.reference), *self.operator.files()]
        operator = self.operator.with_kernel_read()
        planned = plan_outputs(batch, paths, "_restored", self.output, self._files, kept=kept, check=check)
        jobs = []
        for path, target in planned:
            with batch.item(path):
                if job := self._job(path, target, operator, batch.listener):
                    jobs.append(job)
        return jobs

    def _files(self, target: Path) -> list[Path]:
        return [file for name in sample_names(target, self.samples) for file in (name, name.with_suffix(".json"))]

    def _job(self, path: Path, target: Path, operator: OperatorOptions, listener: Listener) -> Job | None:
        planned = plan_input(path, self.task, operator, self.noise, listener)
        names, sha256 = enumerate(sample_names(target, self.samples)), sha256_file(path, limit=MAX_PICTURE)
        targets = tuple(unfinished(names, sha256, self.output, listener))
        if not targets:
            return None
        return Job(
            path=path,
            sha256=sha256,
            targets=targets,
            input=planned,
            sampling=self.sampling.resolve(self.own, planned.plan.task),
            grey_sampling=self.sampling.resolve_grey(self.own, planned.plan.task),
            reference=find_reference(self.reference, path, planned),
        )
