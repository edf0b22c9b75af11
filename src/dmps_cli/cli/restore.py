"""`dmps restore`: degraded pictures in, restorations out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dmps_cli import __version__
from dmps_cli.checks import checked
from dmps_cli.cli.console import Console
from dmps_cli.cli.groups import command_options
from dmps_cli.cli.guide import guide, typed
from dmps_cli.cli.options import (
    Inputs,
    LpipsNet,
    OutputFlags,
    SigmaOrAuto,
    TaskName,
    checked_sigma_or_auto,
    checked_task,
    finish,
)
from dmps_cli.errors import UsageError
from dmps_cli.files.atomic import sha256_file
from dmps_cli.files.measurements import RESTORATION_KIND
from dmps_cli.jobs.batch import Batch, open_batch, plan_outputs
from dmps_cli.jobs.measured import Job, find_reference, plan_input, references, sample_names, unfinished
from dmps_cli.jobs.plan import NoTaskError
from dmps_cli.jobs.restore import Restorer, Scores
from dmps_cli.methods.options import SamplingOptions
from dmps_cli.metrics.lpips import LPIPS_NETS
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.weights.options import ComputeOptions

MAX_SAMPLES = 10_000


@command_options
def restore(
    inputs: Inputs,
    operator: OperatorOptions,
    sampling: SamplingOptions,
    compute: ComputeOptions,
    output: OutputFlags,
    task: TaskName = None,
    sigma: SigmaOrAuto = None,
    samples: Annotated[int, typer.Option("--samples", metavar="K", help="Posterior samples per input.")] = 1,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The true picture, or a folder of them by name: prints PSNR, SSIM and LPIPS against it.",
        ),
    ] = None,
    lpips_net: LpipsNet = "alex",
) -> None:
    """Restore degraded pictures.

    An input is a measurement that `dmps degrade` wrote (its sidecar fills what the command line leaves open), or any
    picture that is already degraded; then --task says how.

    Example: dmps restore y.png --task sr4
    """
    console = output.console()
    entry = compute.check()
    sampling.resolve(entry, checked_task(task, typed("restore", inputs)))
    noise = checked_sigma_or_auto(sigma)
    checked("network of LPIPS", lpips_net, LPIPS_NETS)
    if not 1 <= samples <= MAX_SAMPLES:
        raise UsageError(f"--samples is {samples}; it must be from 1 to {MAX_SAMPLES}")
    batch, paths = open_batch(inputs, console, left_out=[RESTORATION_KIND])

    def written(target: Path) -> list[Path]:
        return [file for name in sample_names(target, samples) for file in (name, name.with_suffix(".json"))]

    kept = [*references(reference), *operator.files()]
    operator = operator.with_kernel_read()
    jobs = []
    for path, target in plan_outputs(batch, paths, "_restored", output, written, kept=kept, check=console.check_path):
        with batch.item(path):
            input_plan = plan_input(path, task, operator, noise, console)
            names, input_sha256 = enumerate(sample_names(target, samples)), sha256_file(path)
            if targets := tuple(unfinished(names, input_sha256, output, console)):
                job = Job(
                    path=path,
                    sha256=input_sha256,
                    targets=targets,
                    input=input_plan,
                    sampling=sampling.resolve(entry, input_plan.plan.task),
                    grey_sampling=sampling.resolve_grey(entry, input_plan.plan.task),
                    reference=find_reference(reference, path, input_plan),
                )
                jobs.append(job)
    explain_tasks(batch, console)
    facts: dict[str, Any] = {"version": __version__, "command": "restore", **compute.facts()}
    if len(paths) > 1 and reference is not None and reference.is_file():
        console.note(f"{reference} is the reference of all {len(paths)} inputs; a folder gives each its own")
    scores = Scores(lpips_net, console) if any(job.reference for job in jobs) else None
    try:
        if jobs:
            run(jobs, batch, compute, scores, console)
    except KeyboardInterrupt:  # what is done is worth its table
        console.object({**facts, **scored(scores, console), **batch.described()})
        raise
    finish(batch, console, facts | scored(scores, console))


def run(jobs: Sequence[Job], batch: Batch, compute: ComputeOptions, scores: Scores | None, console: Console) -> None:
    """Loads the prior once; restores every job, and prints each path as soon as it is there."""
    device = compute.start()
    prior = compute.load(device, console)
    for text in dict.fromkeys(f"{job.plan.describe()}; {job.sampling}" for job in jobs):
        console.note(text)
    for text in dict.fromkeys(job.sampling.caution for job in jobs if job.sampling.caution):
        console.note(text)
    places = {job.path: f"{job.path.name} (image {k + 1} of {len(jobs)})" for k, job in enumerate(jobs)}
    restorer = Restorer(prior=prior, compute=compute, device=device, batch=batch)
    with console.progress(sum(len(job.targets) * job.sampling.nfe for job in jobs)) as (advance, say):
        say(places[jobs[0].path])
        for restored in restorer.restored(jobs, scores, advance):
            batch.results.append({**restored.facts, "output": str(restored.path)})
            console.path(restored.path)
            if restored.remark:
                console.note(f"{restored.path}: {restored.remark}")
            say(places[restored.drawn.of.job.path])


def scored(scores: Scores | None, console: Console) -> dict[str, Any]:
    """Prints the table of scores, its protocol under it; the protocol for --json."""
    if scores is None or not scores.rows:
        return {}
    console.table(scores.rows)
    console.result(scores.protocol.line())
    return {"protocol": scores.protocol.as_dict()}


def explain_tasks(batch: Batch, console: Console) -> None:
    """Says, once in a call, what to add for a picture that nothing describes."""
    undescribed = [error.path for _, error in batch.failures if isinstance(error, NoTaskError)]
    if undescribed and not console.quiet:
        with batch.item(undescribed[0]):
            console.note(*guide(undescribed[0]))
