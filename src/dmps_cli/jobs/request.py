"""What is asked of the inputs of a restoration, and the jobs that it makes of them: nothing is computed yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from dmps_cli.checks import SAMPLES
from dmps_cli.errors import InputError
from dmps_cli.files.atomic import sha256_file
from dmps_cli.files.inputs import pictures_in
from dmps_cli.files.measurements import RESTORATION_KIND, Sidecar, read_sidecar
from dmps_cli.files.options import ReadingOptions, WritingOptions
from dmps_cli.files.reading import MAX_PICTURE
from dmps_cli.jobs.batch import Batch, OutputOptions, may_write, plan_outputs
from dmps_cli.jobs.plan import GivenSigma, plan_operator
from dmps_cli.listener import Listener
from dmps_cli.methods.options import HasSampler, SamplingOptions
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.plan import OperatorPlan
from dmps_cli.tasks.table import files_of, named
from dmps_cli.tasks.table import task as checked_task

if TYPE_CHECKING:
    from dmps_cli.methods.choice import Sampling


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
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    writing: WritingOptions = field(default_factory=WritingOptions)

    def __post_init__(self) -> None:
        """Raises UsageError for what can be refused before any input is looked at."""
        if self.task is not None:
            checked_task(self.task)
        SAMPLES("--samples", self.samples)
        self.sampling.resolve(self.own, self.named).check_samples(self.samples)

    @property
    def named(self) -> str | None:
        """The task that is meant: --matrix and --operator stand for one. Raises UsageError for both."""
        return named(self.task, self.operator)

    def jobs(
        self, batch: Batch, paths: Sequence[Path], check: Callable[[Path], object] = lambda path: None
    ) -> list[Job]:
        """Returns a job for each input of which something is to be drawn; what cannot be one is the batch's failure.

        check: raises what is wrong with an output's name. Raises UsageError, InputError for what is all inputs' alike.
        """

        def written(target: Path) -> list[Path]:
            return [file for name in sample_names(target, self.samples) for file in (name, name.with_suffix(".json"))]

        kept = [*references(self.reference), *files_of(self.named, self.operator)]
        kept += [self.noise] if isinstance(self.noise, Path) else []
        operator = self.operator.with_kernel_read()

        def named(path: PurePath) -> str:
            name, note = self.writing.name(path)
            if note is not None:
                batch.note_once(f"format {path.suffix}", note)
            return name

        def checked(target: Path) -> None:
            self.writing.check_target(target)
            check(target)

        planned = plan_outputs(batch, paths, named, self.output, written, kept=kept, check=checked)
        jobs = []
        for path, target in planned:
            with batch.item(path):
                if job := self._job(path, target, operator, batch.listener):
                    jobs.append(job)
        return jobs

    def _job(self, path: Path, target: Path, operator: OperatorOptions, listener: Listener) -> Job | None:
        sidecar, notes = read_sidecar(path)
        for note in notes:
            listener.note(note)
        plan = plan_operator(path, sidecar, self.named, operator, self.noise, listener)
        sha256 = sha256_file(path, limit=MAX_PICTURE)
        targets = {
            sample: name
            for sample, name in enumerate(sample_names(target, self.samples))
            if may_write_sample(name, sample, sha256, self.output, listener) is not None
        }
        if not targets:
            return None
        return Job(
            path=path,
            sha256=sha256,
            targets=targets,
            sidecar=sidecar,
            plan=plan,
            sampling=self.sampling.resolve(self.own, plan.task),
            reference=find_reference(self.reference, path, sidecar),
            output=self.output,
            reading=self.reading,
            writing=self.writing,
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One input, checked as far as that goes without torch.

    targets: where each sample goes, by its number. plan: what it is restored as; the sidecar may say another.
    output: what becomes of files that are there; reading, writing: how the input's values are meant, and the result's
    file is made.
    """

    path: Path
    sha256: str
    targets: Mapping[int, Path]
    sidecar: Sidecar | None
    plan: OperatorPlan
    sampling: Sampling
    reference: Path | None
    output: OutputOptions
    reading: ReadingOptions
    writing: WritingOptions


def sample_names(target: Path, samples: int) -> tuple[Path, ...]:
    """Returns out.png, or out_1.png .. out_K.png."""
    if samples == 1:
        return (target,)
    return tuple(target.with_stem(f"{target.stem}_{k + 1}") for k in range(samples))


def may_write_sample(target: Path, sample: int, sha256: str, output: OutputOptions, listener: Listener) -> bool | None:
    """Returns what `batch.may_write` does of a sample of the input with that hash; asked before work, and after it."""
    made_of = {"kind": RESTORATION_KIND, "input_sha256": sha256, "sample": sample}
    return may_write(target, [target.with_suffix(".json")], made_of, output, listener)


def references(reference: Path | None) -> list[Path]:
    """Returns the pictures that --reference may mean: they are read, and never written."""
    if reference is None or not os.path.isdir(reference):  # noqa: PTH112 - False for any odd name
        return [] if reference is None else [reference]
    return pictures_in(reference)


def find_reference(reference: Path | None, path: Path, sidecar: Sidecar | None) -> Path | None:
    """Returns the true picture of an input: the file named, or the one of that name in the folder.

    Raises InputError.
    """
    if reference is None or reference.is_file():
        return reference
    if not reference.exists():
        raise InputError(f"the reference {reference} does not exist")
    names = [sidecar.source.file] if sidecar else []
    stems = [Path(name).stem for name in names] + [path.stem]
    pictures = pictures_in(reference)
    for stem in stems:
        found = [picture for picture in pictures if picture.stem == stem]
        if len(found) > 1:
            raise InputError(f"{path}: {' and '.join(map(str, found))} could both be its reference; name one")
        if found:
            return found[0]
    raise InputError(f"{path}: no reference named {' or '.join(dict.fromkeys(stems))} in {reference}")
