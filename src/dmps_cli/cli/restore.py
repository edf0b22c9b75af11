"""`dmps restore`: degraded pictures in, restorations out."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmps_cli import __version__
from dmps_cli.cli.batch import Batch, open_batch, plan_outputs, taken
from dmps_cli.cli.console import Console
from dmps_cli.cli.operators import OperatorFlags, OperatorPlan, plan_operator
from dmps_cli.cli.options import (
    ComputeFlags,
    Inputs,
    OutputFlags,
    SamplingFlags,
    Sigma,
    Task,
    checked_sigma,
    command_options,
)
from dmps_cli.errors import InputError, UsageError
from dmps_cli.measurements import both_scales, json_bytes, read_measurement, read_sidecar, versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from dmps_cli.methods import Sampling
    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.weights import LoadedPrior

RESTORATION_KIND = "dmps restoration"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One input, checked as far as that goes without torch."""

    path: Path
    targets: tuple[Path, ...]
    plan: OperatorPlan
    reference: Path | None


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A job with its measurement read and its operator built."""

    job: Job
    y: Tensor
    op: LinearOperator


@command_options
def restore(
    inputs: Inputs,
    operator: OperatorFlags,
    sampling: SamplingFlags,
    compute: ComputeFlags,
    output: OutputFlags,
    task: Task = None,
    sigma: Sigma = None,
    samples: Annotated[int, typer.Option("--samples", metavar="K", help="Posterior samples per input.")] = 1,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="The true picture, or a folder of them by name: prints PSNR, SSIM and LPIPS against it."
        ),
    ] = None,
    lpips_net: Annotated[str, typer.Option(metavar="alex|vgg|squeeze", help="Network of LPIPS.")] = "alex",
) -> None:
    """Restore degraded pictures.

    An input is a measurement that `dmps degrade` wrote (its sidecar fills what the command line leaves open), or any
    picture that is already degraded; then --task says how.

    Example: dmps restore y.png --task sr4
    """
    console = output.console()
    chosen = sampling.resolve()
    compute.check()
    checked_sigma(sigma)
    if samples < 1:
        raise UsageError(f"--samples is {samples}; it must be at least 1")
    batch, paths = open_batch(inputs, console)
    jobs = []
    for path, target in plan_outputs(batch, paths, "_restored", output):
        with batch.item(path):
            targets = sample_names(target, samples)
            if taken([*targets, *(t.with_suffix(".json") for t in targets)], output, console):
                continue
            jobs.append(make_job(path, targets, task, operator, sigma, reference, console))
    if jobs:
        run_jobs(jobs, batch, chosen, compute, output, lpips_net)
    batch.finish({"version": __version__, "command": "restore", **chosen.as_dict(), **asdict(compute)})


def sample_names(target: Path, samples: int) -> tuple[Path, ...]:
    """out.png, or out_1.png .. out_K.png."""
    if samples == 1:
        return (target,)
    return tuple(target.with_stem(f"{target.stem}_{k + 1}") for k in range(samples))


def make_job(
    path: Path,
    targets: tuple[Path, ...],
    task: str | None,
    operator: OperatorFlags,
    sigma: float | None,
    reference: Path | None,
    console: Console,
) -> Job:
    """Reads the sidecar and settles task, operator and sigma_y. Raises UsageError if they stay open."""
    sidecar, notes = read_sidecar(path)
    plan, more = plan_operator(path, sidecar, task, operator, sigma)
    for note in (*notes, *more):
        console.note(note)
    return Job(path=path, targets=targets, plan=plan, reference=find_reference(reference, path, plan))


def find_reference(reference: Path | None, path: Path, plan: OperatorPlan) -> Path | None:
    """The true picture of an input: the file named, or the one of that name in the folder. Raises InputError."""
    if reference is None or reference.is_file():
        return reference
    if not reference.exists():
        raise InputError(f"the reference {reference} does not exist")
    names = [plan.sidecar.source.file] if plan.sidecar else []
    stems = [Path(name).stem for name in names] + [path.stem]
    for stem in stems:
        found = sorted(candidate for candidate in reference.iterdir() if candidate.stem == stem)
        if found:
            return found[0]
    raise InputError(f"{path}: no reference named {' or '.join(stems)} in {reference}")


def run_jobs(
    jobs: Sequence[Job],
    batch: Batch,
    sampling: Sampling,
    compute: ComputeFlags,
    output: OutputFlags,
    lpips_net: str,
) -> None:
    """Loads the prior once and restores every job."""
    from dmps_cli.device import resolve_device, tune_allocator
    from dmps_cli.weights import load_prior

    tune_allocator()
    device = resolve_device(compute.device)
    prior = load_prior(compute.model, device, compute.dtype)
    batch.console.note(f"{sampling}; prior {prior.name}, {compute.dtype} on {device}")
    scorer = Scores(lpips_net, batch.console) if any(job.reference for job in jobs) else None
    num_steps = sum(len(job.targets) for job in jobs) * sampling.nfe
    with batch.console.progress(num_steps) as (advance, say):
        for number, group in enumerate(ready_groups(jobs, batch, compute)):
            say(f"{group[0].job.path.name} ({number + 1})")
            for ready, images, seconds in restore_group(group, prior, sampling, compute, advance):
                with batch.item(ready.job.path):
                    write(ready, images, seconds, prior, sampling, compute, output, batch, scorer)
    if scorer:
        scorer.print(batch)


def ready_groups(jobs: Sequence[Job], batch: Batch, compute: ComputeFlags) -> Iterator[list[Ready]]:
    """Inputs that share an operator, at most --batch-size together; what cannot be read fails alone."""

    def readable() -> Iterator[Ready]:
        for job in jobs:
            with batch.item(job.path):
                yield read(job, batch.console, compute)

    for _, group in groupby(readable(), key=lambda ready: (ready.job.plan.key, ready.op.in_shape, ready.job.plan.sigma_y)):
        while chunk := list(islice(group, compute.batch_size)):
            yield chunk
